//! What writers say of their lanes, asked at their admin listeners.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::command::admin_page;

/// What holds a partition up, by the signals of its stream and its number.
type Said = BTreeMap<(String, i32), String>;

/// What holds each partition up, by what these writers say. One that does not answer is named on
/// the standard error and has said nothing.
pub(super) fn ask(writers: &[String]) -> Said {
    let mut said = BTreeMap::new();
    for writer in writers {
        match admin_page::get(writer, "/lanes") {
            Ok(page) => said.extend(parsed(&page)),
            Err(error) => {
                eprintln!("{writer} does not say what its partitions wait for: {error:#}")
            }
        }
    }
    said
}

fn parsed(page: &str) -> Said {
    let json: Value = serde_json::from_str(page).unwrap_or_default();
    let lane = |lane: &Value| {
        let partition = i32::try_from(lane["partition"].as_i64()?).ok()?;
        let signal = lane["signal"].as_str()?.to_owned();
        Some(((signal, partition), lane["held_up_by"].as_str()?.to_owned()))
    };
    json["lanes"].as_array().into_iter().flatten().filter_map(lane).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_what_each_lane_waits_for() {
        let page = r#"{"lanes":[{"signal":"logs","partition":3,"held_up_by":"target_away","seconds":1.5},{}]}"#;
        let expected = (("logs".to_owned(), 3), "target_away".to_owned());
        assert_eq!(parsed(page), BTreeMap::from([expected]));
        assert_eq!(parsed("no JSON"), BTreeMap::new());
    }
}
