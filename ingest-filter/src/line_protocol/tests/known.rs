//! Lines that are copied, beside the same lines read one by one: the verdicts and the points are
//! the same, whatever is in them.

use std::collections::BTreeMap;

use super::*;
use crate::point::Chunker;

const CHUNK_BYTES_MAX: usize = 64 << 10;

/// What becomes of a body: the points by shard, as we write them, and every fault with its line;
/// beside it, how many lines were copied.
type Read = (BTreeMap<u32, Vec<u8>>, Vec<(u64, usize, Fault)>);

fn read_with(body: &[u8], dialect: Dialect, copying: bool) -> (Read, u64) {
    let mut chunker = Chunker::new(0, NOW_NS, CHUNK_BYTES_MAX);
    let (mut lines, mut point) = (Lines::new(body, dialect), Point::default());
    let (mut faults, mut copied, mut last) = (Vec::new(), 0, 0);
    loop {
        while copying && let Some(line) = lines.next_known(chunker.shapes()) {
            assert!(line.line > last, "lines are told in their order");
            last = line.line;
            copied += 1;
            chunker.push_known(&line);
        }
        match lines.next(&mut point) {
            None => break,
            Some(Ok(line)) => {
                last = line;
                if let Err(fault) = chunker.push_line(&mut point) {
                    faults.push((line, 0, fault));
                }
            }
            Some(Err(error)) => {
                last = error.line;
                faults.push((error.line, error.column, error.fault));
            }
        }
    }
    let mut shards = BTreeMap::<u32, Vec<u8>>::new();
    for chunk in chunker.finish() {
        shards.entry(chunk.shard).or_default().extend_from_slice(&chunk.body);
    }
    ((shards, faults), copied)
}

/// Numbers may be spelled otherwise where a line is copied: `1` for `1.0`.
fn canonical_shards(shards: &BTreeMap<u32, Vec<u8>>) -> BTreeMap<u32, Vec<u8>> {
    let canonical = |body: &Vec<u8>| {
        let mut out = Vec::new();
        for verdict in read(body, NS) {
            let (_, mut point) = verdict.expect("what was written is read back");
            assert!(point.timestamp_ns.is_some());
            encode(&mut point, 0, &mut out).expect("it may be stored");
        }
        out
    };
    shards.iter().map(|(shard, body)| (*shard, canonical(body))).collect()
}

/// Holds that copying changes nothing, and gives how many lines were copied.
#[track_caller]
pub(super) fn same(body: &[u8], dialect: Dialect) -> u64 {
    let ((expected, faults), _) = read_with(body, dialect, false);
    let ((found, found_faults), copied) = read_with(body, dialect, true);
    let text = String::from_utf8_lossy(body);
    assert_eq!(found_faults, faults, "{text:?}");
    assert_eq!(canonical_shards(&found), canonical_shards(&expected), "{text:?}");
    copied
}

/// Whether the second line is copied after the first was read.
#[track_caller]
fn check(first: &str, second: &str, copied: bool) {
    let body = format!("{first}\n{second}\nother f=1i 1\n");
    assert_eq!(same(body.as_bytes(), NS), u64::from(copied), "{body}");
}

#[test]
fn lines_like_an_earlier_one_are_copied() {
    let first = "cpu,host=a,cpu=0 user=1.5,n=3i,up=true,note=\"x\" 1700000000000000000";
    let like = |line: &str| check(first, line, true);
    like(first);
    like("cpu,host=b,cpu=17 user=-0.25,n=-4i,up=false,note=\"two\nlines, a=b\" 5");
    like("cpu,host=b,cpu=17 user=7,n=0i,up=true,note=\"\"");
    like(r#"cpu,host=a\ b\,c\=d,cpu="é" user=100,n=1i,up=true,note="\"\\" 1700000000000000001"#);
    let unlike = |line: &str| check(first, line, false);
    unlike("cpu,host=b,cpu=17 user=1e3,n=3i,up=true,note=\"x\" 5");
    unlike("cpu,host=b,cpu=17 user=1.,n=3i,up=true,note=\"x\" 5");
    unlike("cpu,host=b,cpu=17 user=01,n=3i,up=true,note=\"x\" 5");
    unlike("cpu,host=b,cpu=17 user=1i,n=3i,up=true,note=\"x\" 5");
    unlike("cpu,host=b,cpu=17 user=1,n=9223372036854775808i,up=true,note=\"x\" 5");
    unlike("cpu,host=b,cpu=17 user=1,n=3i,up=t,note=\"x\" 5");
    unlike("cpu,host=b,cpu=17 user=1,n=3i,up=true,note=\"\\d\" 5");
    unlike("cpu,host=b,cpu=17 user=1,n=3i,up=true,note=\"x\" -5");
    unlike("cpu,host=b,cpu=17 user=1,n=3i,up=true,note=\"x\" 9223372036854775807");
    unlike("cpu,host=b,cpu=17 user=1,n=3i,up=true,note=\"x\" 5 ");
    unlike("cpu,host=b,cpu=17 user=1,n=3i,up=true,note=\"x\"  5");
    unlike("cpu,host=b,cpu=17 user=1,n=3i,up=true,note=\"x\",more=1 5");
    unlike("cpu,host=b,cpu=17 user=1,n=3i,up=true 5");
    unlike("cpu,host=b,cpu= user=1,n=3i,up=true,note=\"x\" 5");
    unlike("cpu,host=b,cpu=a=b user=1,n=3i,up=true,note=\"x\" 5");
    unlike("cpu,host=b,cpu=a\\b user=1,n=3i,up=true,note=\"x\" 5");
    unlike("cpu,host=b,cpu=a\u{1}b user=1,n=3i,up=true,note=\"x\" 5");
    unlike("cpux,host=b,cpu=1 user=1,n=3i,up=true,note=\"x\" 5");
    unlike(" cpu,host=b,cpu=1 user=1,n=3i,up=true,note=\"x\" 5");
    unlike("cpu,host=b,cpu=1 user=1,n=3i,up=true,note=\"x\" 5\r");
}

#[test]
fn tags_are_put_in_order_and_a_timestamp_in_nanoseconds() {
    let body = b"m,z=1,a=2,k=3 f=1i 1700000000\nm,z=9,a=8,k=7 f=2i 1700000001\nm,z=1,a=2,k=3 f=3i";
    let seconds = Dialect { precision: Precision::Seconds, ..NS };
    let ((shards, faults), copied) = read_with(body, seconds, true);
    let mut written: Vec<_> = shards.into_values().flat_map(String::from_utf8).collect();
    written.sort();
    let expected = [
        "m,a=2,k=3,z=1 f=1i 1700000000000000000\nm,a=2,k=3,z=1 f=3i 1700000000000000000\n",
        "m,a=8,k=7,z=9 f=2i 1700000001000000000\n",
    ];
    assert_eq!(
        (written.as_slice(), faults.len(), copied),
        (&expected.map(str::to_owned)[..], 0, 2)
    );
    check("m,b=1,a=2 f=1i 5", "m,b=\\ ,a=x f=1i 5", true);
    check("m,a=1,a=2 f=1i 5", "m,a=1,a=2 f=1i 5", false);
    check("m,tidegate_db=1 f=1i 5", "m,tidegate_db=1 f=1i 5", false);
    check("m f=1i,f=2i 5", "m f=1i,f=2i 5", false);
}

#[test]
fn a_line_that_would_not_fit_is_not_copied() {
    let line = |length: usize| format!("m f=\"{}\" 5\n", "x".repeat(length));
    let body = [line(10), line(40 << 10), line(80 << 10), line(10)].concat();
    assert_eq!(same(body.as_bytes(), NS), 1);
    let short = Dialect { line_bytes_max: 40, ..NS };
    assert_eq!(same([line(5), line(10), line(100)].concat().as_bytes(), short), 1);
}

fn piece() -> impl Strategy<Value = String> {
    let plain = |text: &str| proptest::string::string_regex(text).expect("a valid expression");
    prop_oneof![
        4 => plain("[0-9]{1,20}"),
        4 => plain("-?[0-9]{1,10}\\.[0-9]{1,12}"),
        3 => plain("-?[0-9]{1,4}[iu]"),
        2 => plain("true|false|t|F|TRUE"),
        3 => plain("\"([a-z ,=\n\\\\\"é]|\\\\\"|\\\\\\\\){0,6}\""),
        4 => plain("[a-z.é/\"-]{1,9}"),
        1 => plain("([a-z]|\\\\[ ,=a\\\\]){1,5}"),
        1 => plain("[a-z\\\\ ,=\"\n\r\u{1}\u{7f}#]{0,4}"),
    ]
}

/// Lines out of few names and shapes, so that many are like an earlier one.
fn line() -> impl Strategy<Value = String> {
    let names = ["m", "cpu", "a b", "a\\ b", "#m"];
    let tags = ["", ",a=", ",b=", ",z=,a=", ",a=,b=,c=", ",b=,a=,c=", ",a=,a=", ",k\\ =,a="];
    let fields = ["f=", "f=,g=", "g=,f=", "f=,f=", "f\\,=", "time="];
    let stamp = prop_oneof![
        Just(String::new()),
        piece().prop_map(|text| format!(" {text}")),
        Just(" 1700000000000000000".to_owned()),
        Just(" 1700000000".to_owned())
    ];
    let pieces = proptest::collection::vec(piece(), 6);
    (0..names.len(), 0..tags.len(), 0..fields.len(), pieces, stamp).prop_map(
        move |(name, tag, field, pieces, stamp)| {
            let mut pieces = pieces.into_iter();
            let mut filled = |text: &str| {
                let mut out = String::new();
                for part in text.split_inclusive('=') {
                    out += part;
                    if part.ends_with('=') {
                        out += &pieces.next().unwrap_or_default();
                    }
                }
                out
            };
            format!("{}{} {}{stamp}", names[name], filled(tags[tag]), filled(fields[field]))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn copying_changes_nothing(
        lines in proptest::collection::vec(line(), 1..30),
        precision in 0usize..4,
        unsigned: bool,
    ) {
        let precision = ["ns", "s", "ms", "auto"][precision].parse().expect("known");
        same(lines.join("\n").as_bytes(), Dialect { precision, unsigned, ..NS });
    }

    #[test]
    fn copying_changes_nothing_in_any_bytes(
        piece in proptest::collection::vec(any::<u8>(), 0..40),
        at in 0usize..80,
        line in line(),
    ) {
        let mut body = [line.as_bytes(), b"\n", line.as_bytes(), b"\n"].concat();
        let at = at.min(body.len());
        body.splice(at..at, piece);
        same(&[&body[..], &body, line.as_bytes()].concat(), NS);
    }
}

#[test]
fn nearly_all_lines_of_an_agent_are_copied() {
    let mut body = String::new();
    for number in 0..1000 {
        let (host, value) = (number % 7, f64::from(number) / 8.0);
        body += &format!(
            "cpu,host=h{host},cpu=c{number} usage={value:?},n={number}i 170000000000{number}\n"
        );
        body +=
            &format!("mem,host=h{host} used={number}i,note=\"n {number}\" 170000000000{number}\n");
    }
    assert_eq!(same(body.as_bytes(), NS), 1998);
}
