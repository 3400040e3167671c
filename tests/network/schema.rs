//! The documented form of `summary.json`.

use serde_json::Value;

/// What a field must be.
enum Must {
    /// Text that is not empty.
    Text,
    /// 64 hexadecimal digits.
    Hash,
    /// A whole number from 1.
    Count,
    /// A finite number, at least 0.
    Amount,
    /// A number from 0 to 1.
    Share,
    /// A number from -1 to 1.
    Cosine,
    /// A list of texts, at least one.
    Texts,
    /// An object with exactly these fields.
    Object(&'static [(&'static str, Must)]),
    /// A list, at least one long, of such.
    List(&'static Must),
    /// An object, at least one field long, of such.
    Named(&'static Must),
}

use Must::*;

const ACCURACY: Must = Object(&[("global", Share), ("own", Share)]);

const SUMMARY: Must = Object(&[
    ("scenario", Text),
    ("metric", Text),
    ("network_id", Hash),
    ("rounds", Count),
    ("wall_s", Amount),
    (
        "nodes",
        List(&Object(&[
            ("name", Text),
            ("backbone", Text),
            ("width", Count),
            ("depth", Count),
            ("backbone_params", Count),
            ("shared_params", Count),
            ("classes_seen", Texts),
            ("alone", Object(&[("global", Share), ("own", Share), ("best_of", Named(&ACCURACY))])),
            ("network", ACCURACY),
            ("bytes_out", Count),
            ("bytes_in", Count),
            ("peak_rss_bytes", Count),
            ("mixture_hash", Hash),
        ])),
    ),
    (
        "round_log",
        List(&Object(&[
            ("round", Count),
            ("updates", Count),
            ("update_norm", Amount),
            ("branch_norm", Amount),
            ("agreement", Cosine),
            ("network_global", Share),
            ("mixture_hash", Hash),
        ])),
    ),
    (
        "mean",
        Object(&[("alone_global", Share), ("network_global", Share), ("alone_own", Share), ("network_own", Share)]),
    ),
    (
        "bytes",
        Object(&[
            ("sent_per_node_per_round", Amount),
            ("full_model_per_node_per_round", Amount),
            ("reduction", Amount),
        ]),
    ),
]);

/// Checks a summary's form, ranges, and that its sums are those of its parts.
pub(crate) fn check(summary: &Value) {
    check_value("summary", summary, &SUMMARY);
    let nodes = summary["nodes"].as_array().unwrap();
    let mean = |of: &dyn Fn(&Value) -> f64| nodes.iter().map(of).sum::<f64>() / nodes.len() as f64;
    for (key, place, field) in [
        ("alone_global", "alone", "global"),
        ("network_global", "network", "global"),
        ("alone_own", "alone", "own"),
        ("network_own", "network", "own"),
    ] {
        near(key, &summary["mean"][key], mean(&|node| node[place][field].as_f64().unwrap()));
    }
    let bytes = &summary["bytes"];
    let number = |key: &str| bytes[key].as_f64().unwrap();
    let sent = mean(&|node| node["bytes_out"].as_f64().unwrap()) / summary["rounds"].as_f64().unwrap();
    // Each sends its model, four bytes a parameter, to each of the others.
    let others = (nodes.len() - 1) as f64;
    let full = mean(&|node| node["backbone_params"].as_f64().unwrap() * 4.0) * others;
    near("sent", &bytes["sent_per_node_per_round"], sent);
    near("full", &bytes["full_model_per_node_per_round"], full);
    near("reduction", &bytes["reduction"], number("full_model_per_node_per_round") / number("sent_per_node_per_round"));
    for node in nodes {
        let best = node["alone"]["best_of"].as_object().unwrap().values();
        let chosen =
            best.into_iter().any(|one| one["global"] == node["alone"]["global"] && one["own"] == node["alone"]["own"]);
        assert!(chosen, "what is called the best alone is none of those tried: {node}");
    }
}

fn near(what: &str, value: &Value, expected: f64) {
    let value = value.as_f64().unwrap();
    assert!((value - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{what} is {value}, not {expected}");
}

fn check_value(at: &str, value: &Value, must: &Must) {
    let number = || value.as_f64().unwrap_or_else(|| panic!("{at} is no number: {value}"));
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let holds = match must {
        Text => text(value),
        Hash => value.as_str().is_some_and(|text| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())),
        Count => value.as_u64().is_some_and(|count| count > 0),
        Amount => number() >= 0.0,
        Share => (0.0..=1.0).contains(&number()),
        Cosine => (-1.0..=1.0).contains(&number()),
        Texts => value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(text)),
        Object(fields) => {
            let object = value.as_object().unwrap_or_else(|| panic!("{at} is no object: {value}"));
            let (is, must): (Vec<&str>, Vec<&str>) =
                (object.keys().map(String::as_str).collect(), fields.iter().map(|(name, _)| *name).collect());
            let sorted = |mut names: Vec<&'static str>| {
                names.sort_unstable();
                names
            };
            // serde_json keeps objects sorted.
            assert_eq!(is, sorted(must), "the fields of {at}");
            fields.iter().for_each(|(name, must)| check_value(&format!("{at}.{name}"), &object[*name], must));
            true
        }
        List(must) => {
            let list = value.as_array().unwrap_or_else(|| panic!("{at} is no list: {value}"));
            list.iter().enumerate().for_each(|(index, value)| check_value(&format!("{at}[{index}]"), value, must));
            !list.is_empty()
        }
        Named(must) => {
            let object = value.as_object().unwrap_or_else(|| panic!("{at} is no object: {value}"));
            object.iter().for_each(|(name, value)| check_value(&format!("{at}.{name}"), value, must));
            !object.is_empty()
        }
    };
    assert!(holds, "{at} is {value}");
}
