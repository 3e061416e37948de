//! Which known word a misspelt one was meant to be.

/// The known word that is fewest slips away from `word`, if that is few enough: one, or a third of its
/// letters. A slip is a letter too many, too few, wrong, or swapped with the next.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let most = (word.chars().count() / 3).max(1);
    let slips = known.into_iter().map(|known| (slips(&word, &known.to_lowercase()), known));
    slips
        .filter(|(slips, _)| *slips <= most)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, known)| known)
}

/// The optimal string alignment distance.
fn slips(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let width = other.len() + 1;
    let mut table = vec![0; (one.len() + 1) * width];
    for row in 0..=one.len() {
        for column in 0..=other.len() {
            let at = row * width + column;
            table[at] = match (row, column) {
                (0, _) => column,
                (_, 0) => row,
                _ => {
                    let is_same = one[row - 1] == other[column - 1];
                    let replaced = table[at - width - 1] + usize::from(!is_same);
                    let nearest = replaced.min(table[at - width] + 1).min(table[at - 1] + 1);
                    let is_swapped = row > 1
                        && column > 1
                        && one[row - 1] == other[column - 2]
                        && one[row - 2] == other[column - 1];
                    match is_swapped {
                        true => nearest.min(table[at - 2 * width - 2] + 1),
                        false => nearest,
                    }
                }
            };
        }
    }
    table[table.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let known = ["second", "minute", "hour", "requests_per_unit", "rate_limit"];
        for (word, expected) in [
            ("minut", Some("minute")),
            ("MINTUE", Some("minute")),
            ("hours", Some("hour")),
            ("request_per_unti", Some("requests_per_unit")),
            ("ratelimit", Some("rate_limit")),
            ("fortnight", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
