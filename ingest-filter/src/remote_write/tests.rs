//! Tests of `remote_write`.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::point::encode;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestV1 {
    #[prost(message, repeated, tag = "1")]
    pub(crate) timeseries: Vec<SeriesV1>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SeriesV1 {
    #[prost(message, repeated, tag = "1")]
    pub(crate) labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) exemplars: Vec<ExemplarV1>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Label {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Sample {
    #[prost(double, tag = "1")]
    pub(crate) value: f64,
    #[prost(int64, tag = "2")]
    pub(crate) timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExemplarV1 {
    #[prost(message, repeated, tag = "1")]
    pub(crate) labels: Vec<Label>,
    #[prost(double, tag = "2")]
    pub(crate) value: f64,
    #[prost(int64, tag = "3")]
    pub(crate) timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestV2 {
    #[prost(string, repeated, tag = "4")]
    pub(crate) symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) timeseries: Vec<SeriesV2>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SeriesV2 {
    #[prost(uint32, repeated, tag = "1")]
    pub(crate) labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) histograms: Vec<Histogram>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) exemplars: Vec<ExemplarV2>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExemplarV2 {
    #[prost(uint32, repeated, tag = "1")]
    pub(crate) labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    pub(crate) value: f64,
    #[prost(int64, tag = "3")]
    pub(crate) timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Histogram {
    #[prost(uint64, tag = "1")]
    pub(crate) count: u64,
    #[prost(double, tag = "3")]
    pub(crate) sum: f64,
    #[prost(sint32, tag = "4")]
    pub(crate) schema: i32,
    #[prost(uint64, tag = "6")]
    pub(crate) zero_count: u64,
    #[prost(message, repeated, tag = "8")]
    pub(crate) negative_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "9")]
    pub(crate) negative_deltas: Vec<i64>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) positive_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "12")]
    pub(crate) positive_deltas: Vec<i64>,
    #[prost(int64, tag = "15")]
    pub(crate) timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    pub(crate) custom_values: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Span {
    #[prost(sint32, tag = "1")]
    pub(crate) offset: i32,
    #[prost(uint32, tag = "2")]
    pub(crate) length: u32,
}

/// The line of every item that is stored, and the fault of every other.
#[derive(Default)]
struct Recorder {
    lines: Vec<String>,
    reserved: usize,
}

impl Intake for Recorder {
    fn take(&mut self, kind: Kind, item: Item<'_, '_>) -> Result<(), Stop> {
        let line = match item {
            Item::Point(point) => {
                let mut out = Vec::new();
                match encode(point, 9, &mut out) {
                    Ok(_) => String::from_utf8(out).expect("UTF-8").trim_end().to_owned(),
                    Err(fault) => format!("{kind:?}: {fault}"),
                }
            }
            Item::Skipped => "skipped".to_owned(),
            Item::Rejected(fault) | Item::Unwanted(_, fault) => format!("{kind:?}: {fault}"),
        };
        self.lines.push(line);
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), Stop> {
        self.reserved += bytes;
        Ok(())
    }
}

fn read(request: &[u8], version: Version) -> Result<Vec<String>, Stop> {
    let mut recorder = Recorder::default();
    for_each_item(request, version, &mut recorder)?;
    Ok(recorder.lines)
}

fn label(name: &str, value: impl AsRef<[u8]>) -> Label {
    Label { name: name.into(), value: value.as_ref().to_vec() }
}

fn v1(labels: Vec<Label>, samples: Vec<Sample>) -> Vec<String> {
    let series = SeriesV1 { labels, samples, ..Default::default() };
    let request = RequestV1 { timeseries: vec![series] };
    read(&request.encode_to_vec(), Version::V1).expect("a request")
}

fn sample(value: f64, timestamp: i64) -> Sample {
    Sample { value, timestamp }
}

#[test]
fn samples_are_stored_whatever_their_value() {
    let labels = vec![label("__name__", "up"), label("empty", ""), label("job", "node")];
    let stale = f64::from_bits(STALE);
    let values = [1.0, stale, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let mut samples: Vec<Sample> =
        values.iter().zip(1..).map(|(value, ms)| sample(*value, ms)).collect();
    samples.push(sample(1.0, i64::MAX));
    assert_eq!(
        v1(labels, samples),
        [
            "up,job=node value=1.0 1000000",
            r#"up,job=node non_finite="stale" 2000000"#,
            r#"up,job=node non_finite="NaN" 3000000"#,
            r#"up,job=node non_finite="+Inf" 4000000"#,
            r#"up,job=node non_finite="-Inf" 5000000"#,
            "Sample: timestamp is out of range for its precision",
        ]
    );
}

#[test]
fn label_values_are_any_text() {
    let labels = vec![
        label("__name__", "up"),
        label("a", "C:\\"),
        label("b", "line\nfeed"),
        label("c", "x\\,y"),
        label("d", b"caf\xc3\xa9"),
        label("e", b"bad \xff byte"),
    ];
    assert_eq!(
        v1(labels, vec![sample(1.0, 1)]),
        ["up,a=C:/,b=line\\ feed,c=x/\\,y,d=café,e=bad\\ \u{fffd}\\ byte value=1.0 1000000"]
    );
}

#[test]
fn a_bad_series_costs_its_own_samples_only() {
    for labels in [vec![], vec![label("job", "x")], vec![label("__name__", "")]] {
        assert_eq!(v1(labels, vec![sample(1.0, 1)]), ["Sample: measurement is missing"]);
    }
    let good = SeriesV1 {
        labels: vec![label("__name__", "up")],
        samples: vec![sample(1.0, 1)],
        ..Default::default()
    };
    let mut request = RequestV1 { timeseries: vec![good.clone()] }.encode_to_vec();
    // A series that ends within its first label.
    request.extend(b"\x0a\x02\x0a\x09");
    request.extend(RequestV1 { timeseries: vec![good] }.encode_to_vec());
    assert_eq!(
        read(&request, Version::V1).expect("a request"),
        [
            "up value=1.0 1000000",
            "Sample: is not a valid message of its protocol",
            "up value=1.0 1000000",
        ]
    );
}

fn v2(symbols: &[&str], series: Vec<SeriesV2>) -> Result<Vec<String>, Stop> {
    let symbols = symbols.iter().map(|symbol| (*symbol).to_owned()).collect();
    read(&RequestV2 { symbols, timeseries: series }.encode_to_vec(), Version::V2)
}

#[test]
fn the_second_version_refers_to_symbols() {
    let symbols = ["", "__name__", "up", "job", "no\\", "trace_id", "t\"1"];
    let exemplar = ExemplarV2 { labels_refs: vec![5, 6], value: 2.5, timestamp: 3 };
    let good = SeriesV2 {
        labels_refs: vec![3, 4, 1, 2],
        samples: vec![sample(1.0, 1)],
        exemplars: vec![exemplar.clone(), ExemplarV2 { labels_refs: vec![5], ..exemplar }],
        ..Default::default()
    };
    let with =
        |labels_refs| SeriesV2 { labels_refs, samples: vec![sample(1.0, 1)], ..Default::default() };
    assert_eq!(
        v2(&symbols, vec![good, with(vec![1, 2, 3]), with(vec![1, 7]), with(vec![])]),
        Ok([
            "up,job=no/ value=1.0 1000000",
            r#"up.exemplar,job=no/ value=2.5,label.trace_id="t\"1" 3000000"#,
            "Exemplar: label refers to a symbol that is not there",
            "Sample: label refers to a symbol that is not there",
            "Sample: label refers to a symbol that is not there",
            "Sample: measurement is missing",
        ]
        .map(str::to_owned)
        .into())
    );
    assert_eq!(v2(&["up"], vec![]), Err(Stop::Malformed), "the first symbol is empty");
    assert_eq!(v2(&[], vec![]), Ok(vec![]));
}

fn histogram(histogram: Histogram) -> Vec<String> {
    let series = SeriesV2 {
        labels_refs: vec![1, 2],
        histograms: vec![Histogram { timestamp: 1, ..histogram }],
        ..Default::default()
    };
    v2(&["", "__name__", "h"], vec![series]).expect("a request")
}

#[test]
fn native_histograms() {
    let span = |offset, length| Span { offset, length };
    let both = Histogram {
        count: 27,
        sum: 1.5,
        zero_count: 1,
        positive_spans: vec![span(0, 3), span(2, 2)],
        positive_deltas: vec![1, 2, 1, 3, 1],
        negative_spans: vec![span(0, 2)],
        negative_deltas: vec![1, 1],
        ..Default::default()
    };
    // Prometheus' bucket of index i ends at 2^i: 1, 3, 4 up to 1, 2, 4, then 7, 8 up to 32, 64.
    assert_eq!(
        histogram(both.clone()),
        [
            "h count=27.0,sum=1.5,-1=2.0,-0.5=3.0,0=4.0,1=5.0,2=8.0,4=12.0,8=12.0,16=12.0,32=19.0,64=27.0 1000000"
        ]
    );
    let custom = Histogram {
        count: 10,
        schema: -53,
        custom_values: vec![0.1, 1.0],
        positive_spans: vec![span(0, 3)],
        positive_deltas: vec![2, 1, 2],
        ..Default::default()
    };
    assert_eq!(histogram(custom.clone()), ["h count=10.0,sum=0.0,0.1=2.0,1=5.0 1000000"]);
    assert_eq!(histogram(Histogram::default()), ["h count=0.0,sum=0.0 1000000"]);
    let stale = Histogram { sum: f64::from_bits(STALE), ..Default::default() };
    assert_eq!(histogram(stale), [r#"h non_finite="stale" 1000000"#]);
    let uncounted = Histogram { count: 99, sum: f64::NAN, ..both.clone() };
    assert!(histogram(uncounted)[0].starts_with("h count=99.0,-1=2.0"));
    for bad in [
        Histogram { count: 99, ..both.clone() },
        Histogram { schema: 77, ..both.clone() },
        Histogram { positive_deltas: vec![-1], ..both.clone() },
        Histogram { positive_spans: vec![], ..both.clone() },
        Histogram { positive_spans: vec![span(0, 9)], ..both },
        Histogram { custom_values: vec![1.0], ..custom.clone() },
        Histogram { custom_values: vec![1.0, 0.1], ..custom },
    ] {
        assert_eq!(histogram(bad), ["Histogram: bucket counts and bounds do not match"]);
    }
}

#[test]
fn what_labels_and_samples_multiply_is_not_copied() {
    let labels = [label("__name__", "up")].into_iter();
    let labels = labels.chain((0..90).map(|at| label(&format!("k{at}"), "x".repeat(5000))));
    let labels: Vec<Label> = labels.collect();
    let samples = vec![sample(1.0, i64::MAX); 20_000];
    let series = SeriesV1 { labels, samples, ..Default::default() };
    let body = RequestV1 { timeseries: vec![series] }.encode_to_vec();
    struct Counter(u64);
    impl Intake for Counter {
        fn take(&mut self, _: Kind, item: Item<'_, '_>) -> Result<(), Stop> {
            assert!(matches!(item, Item::Rejected(Fault::TimestampOutOfRange)));
            self.0 += 1;
            Ok(())
        }
        fn reserve(&mut self, _: usize) -> Result<(), Stop> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    let cost = allocation_counter::measure(|| {
        for_each_item(&body, Version::V1, &mut counter).expect("a request");
    });
    assert_eq!(counter.0, 20_000);
    assert!(cost.count_total < 100, "{} allocations", cost.count_total);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        body in proptest::collection::vec(any::<u8>(), 0..200), second in any::<bool>(),
    ) {
        let version = if second { Version::V2 } else { Version::V1 };
        // Either answer will do; a panic will not.
        let _ = read(&body, version);
    }
}

#[test]
fn a_series_with_two_names_does_not_name_the_next_one() {
    let series = |names: &[&str]| SeriesV1 {
        labels: names.iter().map(|name| label("__name__", name)).collect(),
        samples: vec![sample(1.0, 5)],
        ..SeriesV1::default()
    };
    let request = RequestV1 { timeseries: vec![series(&["x", "yy"]), series(&["x"])] };
    let lines = read(&request.encode_to_vec(), Version::V1).expect("a request");
    assert_eq!(lines, ["yy value=1.0 5000000", "x value=1.0 5000000"]);
}

#[test]
fn a_label_with_two_names_does_not_name_that_of_the_next_series() {
    let twice: &[u8] = b"\x0a\x01a\x12\x01x\x0a\x01b";
    let next: &[u8] = b"\x0a\x01a\x12\x01y";
    let (mut labels, mut point) = (labels::Labels::default(), Point::default());
    let seen = [twice, next].map(|label| {
        labels.begin();
        labels.add(label, &mut point).expect("a label");
        labels.end(&mut point);
        point.tags.clone()
    });
    assert_eq!(seen, [[("b".into(), "x".into())], [("a".into(), "y".into())]]);
}

/// Labels of few names and values, some there twice, some without a value.
fn any_labels() -> impl Strategy<Value = Vec<Label>> {
    let name = proptest::sample::select(&["__name__", "a", "b", "c"][..]);
    let value = proptest::sample::select(&["x", "yy", "", "C:\\", "\u{7}", "gr\u{f6}\u{df}er"][..]);
    let label = (name, value).prop_map(|(name, value)| label(name, value));
    proptest::collection::vec(label, 0..5)
}

proptest! {
    #[test]
    fn a_series_is_the_same_alone_and_among_others(
        series in proptest::collection::vec((any_labels(), 0..3usize, 0..2usize), 1..6),
    ) {
        let series: Vec<SeriesV1> = series
            .into_iter()
            .map(|(labels, samples, exemplars)| SeriesV1 {
                labels,
                samples: vec![sample(1.0, 5); samples],
                exemplars: vec![ExemplarV1::default(); exemplars],
                histograms: Vec::new(),
            })
            .collect();
        let read = |timeseries: Vec<SeriesV1>| {
            let request = RequestV1 { timeseries }.encode_to_vec();
            let lines = read(&request, Version::V1).expect("a request");
            // A refused item is named by its place in the request.
            let bare = |line: String| match line.split_once(": ") {
                Some((place, fault)) if place.parse::<u64>().is_ok() => fault.to_owned(),
                _ => line,
            };
            lines.into_iter().map(bare).collect::<Vec<_>>()
        };
        let alone: Vec<String> =
            series.iter().flat_map(|series| read(vec![series.clone()])).collect();
        prop_assert_eq!(read(series), alone);
    }
}

/// Numbers of which some are written as text, and some of their own.
fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::from_bits(STALE)),
    ]
}

fn any_samples() -> impl Strategy<Value = Vec<Sample>> {
    let time = prop_oneof![4 => -9..9i64, 1 => any::<i64>()];
    let sample = (any_value(), time).prop_map(|(value, timestamp)| Sample { value, timestamp });
    proptest::collection::vec(sample, 0..4)
}

/// What becomes of a series whose messages another reader has built: of its labels the last name
/// counts, and what is stored is what [`encode`] makes of a point with all of it.
fn expected(labels: &[(String, String)], samples: &[Sample]) -> Vec<String> {
    let storable = |text: &str| storable(text.as_bytes()).expect("short").into_owned();
    let name = labels.iter().rfind(|(name, _)| name == "__name__");
    let tags = labels.iter().filter(|(name, value)| name != "__name__" && !value.is_empty());
    let tags: Vec<_> = tags
        .map(|(name, value)| (Cow::Owned(storable(name)), Cow::Owned(storable(value))))
        .collect();
    let line = |sample: &Sample| {
        let ns = i128::from(sample.timestamp) * 1_000_000;
        let in_range = ns > i128::from(i64::MIN + 1) && ns < i128::from(i64::MAX);
        let fault = match name {
            None => Some(Fault::MeasurementMissing),
            Some((_, name)) if name.is_empty() => Some(Fault::MeasurementMissing),
            Some(_) if !in_range => Some(Fault::TimestampOutOfRange),
            Some(_) => None,
        };
        if let Some(fault) = fault {
            return format!("Sample: {fault}");
        }
        let text = |text: &'static str| FieldValue::Text(text.into());
        let field = match sample.value {
            value if value.is_finite() => ("value", FieldValue::Float(value)),
            value if value.to_bits() == STALE => ("non_finite", text("stale")),
            value if value.is_nan() => ("non_finite", text("NaN")),
            value if value > 0.0 => ("non_finite", text("+Inf")),
            _ => ("non_finite", text("-Inf")),
        };
        let mut point = Point {
            measurement: name.map(|(_, name)| storable(name)).unwrap_or_default().into(),
            tags: tags.clone(),
            fields: vec![(field.0.into(), field.1)],
            timestamp_ns: i64::try_from(ns).ok(),
            ..Point::default()
        };
        let mut out = Vec::new();
        match encode(&mut point, 9, &mut out) {
            Ok(_) => String::from_utf8(out).expect("UTF-8").trim_end().to_owned(),
            Err(fault) => format!("Sample: {fault}"),
        }
    };
    samples.iter().map(line).collect()
}

/// Labels as text.
fn any_pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = proptest::sample::select(&["__name__", "a", "b", "c", "d,e", "time"][..]);
    let value =
        proptest::sample::select(&["x", "yy", "", "C:\\", "\u{7}", "gr\u{f6}\u{df}er, a=b"][..]);
    let pair = (name, value).prop_map(|(name, value)| (name.to_owned(), value.to_owned()));
    proptest::collection::vec(pair, 0..6)
}

proptest! {
    /// The trees that prost builds of both versions are the oracle.
    #[test]
    fn both_versions_are_read_as_prost_reads_them(
        series in proptest::collection::vec((any_pairs(), any_samples()), 0..6),
    ) {
        let first: Vec<SeriesV1> = series
            .iter()
            .map(|(labels, samples)| SeriesV1 {
                labels: labels.iter().map(|(name, value)| label(name, value)).collect(),
                samples: samples.clone(),
                ..SeriesV1::default()
            })
            .collect();
        let mut symbols = vec![String::new()];
        let mut refer = |text: &str| match symbols.iter().position(|known| known == text) {
            Some(at) => at as u32,
            None => {
                symbols.push(text.to_owned());
                symbols.len() as u32 - 1
            }
        };
        let second: Vec<SeriesV2> = series
            .iter()
            .map(|(labels, samples)| SeriesV2 {
                labels_refs: labels
                    .iter()
                    .flat_map(|(name, value)| [refer(name), refer(value)])
                    .collect(),
                samples: samples.clone(),
                ..SeriesV2::default()
            })
            .collect();
        let first = RequestV1 { timeseries: first }.encode_to_vec();
        let second = RequestV2 { symbols, timeseries: second }.encode_to_vec();
        // What prost reads of the bytes, not what they were made of.
        let tree = RequestV1::decode(&first[..]).expect("a request");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let lines: Vec<String> = tree
            .timeseries
            .iter()
            .flat_map(|series| {
                let labels = series.labels.iter();
                let labels = labels.map(|label| (text(&label.name), text(&label.value)));
                expected(&labels.collect::<Vec<_>>(), &series.samples)
            })
            .collect();
        prop_assert_eq!(&read(&first, Version::V1).expect("a request"), &lines);
        let tree = RequestV2::decode(&second[..]).expect("a request");
        let lines: Vec<String> = tree
            .timeseries
            .iter()
            .flat_map(|series| {
                let symbol = |at: &u32| tree.symbols[*at as usize].clone();
                let pairs = series.labels_refs.chunks(2);
                let labels = pairs.map(|pair| (symbol(&pair[0]), symbol(&pair[1])));
                expected(&labels.collect::<Vec<_>>(), &series.samples)
            })
            .collect();
        prop_assert_eq!(read(&second, Version::V2).expect("a request"), lines);
    }
}
