//! Comparisons of methods, with a stand-in for the engine: what nodes report is a formula.

use heterotune_crypto::Digest;
use heterotune_protocol::charter::Alignment;
use heterotune_scenarios::{
    Heard, InProcess, Plan, RunError, Runner, Scenario,
    compare::{Comparison, Study},
};
use serde_json::json;
use std::{fs, path::Path};

/// Says what three nodes might. On the test, ten times the file's rate is the best; on the validation rows, three times,
/// after round 2 of 3. Without alignment, each further rung is better until 0.3; beyond that training diverges.
#[derive(Default)]
struct Formula {
    networks: usize,
}

impl InProcess for Formula {
    fn run(&mut self, plan: &Plan<'_>, heard: &mut Heard<'_>) -> Result<(), RunError> {
        self.networks += 1;
        let (rate, seed) = (plan.train.rate, plan.seed as f64);
        let aligned = plan.charter.adapter.alignment == Alignment::Anchors;
        if !aligned && rate > 0.5 {
            return Err(RunError::Diverged("the loss is NaN".into()));
        }
        assert!(plan.data.join("a/validation.csv").is_file());
        let hash = |round: u64| Digest::of("test", &[&round.to_le_bytes()]);
        for node in 0..plan.scenario.nodes.len() {
            let mut say = |event| heard(node, event);
            say(json!({"event": "backbone", "model_type": "vit", "width": 1, "depth": 1, "parameters": 1,
                "shared_parameters": 1, "classes": []}))?;
            if plan.alone {
                let score = json!({"global": 0.3 + 0.01 * seed, "own": 0.9});
                say(json!({"event": "alone", "global": score["global"], "own": 0.9, "best_of": {"x": score}}))?;
            }
            say(json!({"event": "aligned", "fit": [0.9]}))?;
            say(json!({"event": "genesis", "genesis_id": hash(0), "left_out": []}))?;
        }
        for round in 0..=plan.charter.rounds.total {
            for node in 0..plan.scenario.nodes.len() {
                let mut say = |event| heard(node, event);
                let off = |best: f64| (rate / best).log10().abs();
                let (test, validation) = match aligned {
                    true => (0.8 - 0.1 * off(0.1), 0.8 - 0.1 * off(0.03) - 0.01 * (round as f64 - 2.0).abs()),
                    false => (0.5, 0.5 - 0.1 * off(0.3)),
                };
                let test = test + 0.01 * seed * f64::from(u8::from(aligned)) + 0.001 * round as f64;
                say(json!({"event": "evaluated", "round": round, "global": test, "own": 0.9}))?;
                say(json!({"event": "validated", "round": round, "global": validation, "own": 0.9}))?;
                if round > 0 {
                    say(json!({"event": "round_closed", "round": round, "updates": 3, "update_norm": 1.0,
                        "branch_norm": 1.0, "agreement": 0.5, "left_out": [], "mixture_hash": hash(round), "bytes_out": 9}))?;
                }
            }
        }
        for node in 0..plan.scenario.nodes.len() {
            let last = plan.charter.rounds.total;
            heard(
                node,
                json!({"event": "finished", "rounds": last, "mixture_hash": hash(last), "bytes_out": 1,
                "bytes_in": 1, "peak_rss_bytes": 0}),
            )?;
        }
        Ok(())
    }
}

fn home(more: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("good")).unwrap();
    fs::write(home.path().join("good/config.json"), "good").unwrap();
    let rows: String = (0..90).map(|row| format!("{},{row},{}\n", row % 2, row * 2)).collect();
    fs::write(home.path().join("data.csv"), format!("label,p0,p1\n{rows}")).unwrap();
    let nodes: String =
        ["a", "b", "c"].map(|name| format!("[[node]]\nname = \"{name}\"\nbackbone = \"good\"\n")).concat();
    let scenario = format!(
        "name = \"small\"\nseed = 1\n{nodes}
        [data]
        file = \"data.csv\"
        train = 70
        anchors = 10
        labelled_per_node = 4
        partition = \"iid\"
        [network]
        adapter = {{ rank = 4, readout_rank = 8 }}
        rounds = {{ total = 3 }}
        [train]
        steps = 1
        batch = 2
        rate = 0.01
        {more}"
    );
    fs::write(home.path().join("small.toml"), scenario).unwrap();
    home
}

fn compare(
    home: &Path,
    methods: &[&str],
    reference: Option<&str>,
    search: bool,
) -> (Result<Study, RunError>, usize, String) {
    let scenario = Scenario::from_file(&home.join("small.toml")).unwrap();
    let (mut progress, mut engine) = (Vec::new(), Formula::default());
    let (binary, out) = (home.join("none"), home.join("out"));
    let runner = Runner { binary, out, seed: 1, ablation: false, lies: false, progress: &mut progress };
    let methods = methods.iter().map(ToString::to_string).collect();
    let comparison = Comparison { methods, seeds: 3, reference: reference.map(Into::into), search };
    let study = runner.compare(&scenario, &comparison, Some(&mut engine));
    (study, engine.networks, String::from_utf8(progress).unwrap())
}

#[test]
fn settings_and_rounds_are_chosen_on_validation_and_scored_on_the_test() {
    let home = home("[[ablation]]\nname = \"mine\"\nsearch = { rate = [0.1, 0.03] }");
    let methods = ["local", "full", "cmga:pcgrad", "unaligned", "statistics", "mine"];
    let (study, networks, progress) = compare(home.path(), &methods, None, true);
    let study = study.unwrap_or_else(|error| panic!("{error}\n{progress}"));
    let method = |name: &str| study.methods.iter().find(|method| method.name == name).unwrap();
    // Half of what is left of 60 rows by 3 times 4.
    assert_eq!((study.validation_rows, study.reference.as_str()), (Some(24), "local"));
    let close = |one: f64, other: f64| (one - other).abs() < 1e-9;

    let full = method("full");
    let chosen = full.chosen.as_ref().unwrap();
    assert_eq!((chosen.setting.as_str(), chosen.round, chosen.at_edge), ("rate 0.03", 2, false));
    assert!(close(chosen.validation, 0.8), "not the rate that is best on the test");
    // The ladder went on once: the best was its last rung.
    assert_eq!(
        full.tried.iter().map(|tried| tried.setting.as_str()).collect::<Vec<_>>(),
        ["rate 0.003", "rate 0.01", "rate 0.03", "rate 0.1"]
    );
    let test = 0.8 - 0.1 * (0.1f64 / 0.03).log10();
    let (global, last) = (full.global.unwrap(), full.last_global.unwrap());
    assert!(
        close(global.mean, test + 0.022) && close(last.mean, test + 0.023) && close(global.deviation.unwrap(), 0.01)
    );
    // Seeds move both alike: the difference does not scatter.
    let against = full.against.as_ref().unwrap();
    assert!(close(against.global.mean, 100.0 * (test + 0.002 - 0.3)) && against.global.deviation.unwrap() < 1e-9);
    assert_eq!((against.global_won, against.own_won), (3, 0));
    assert!(method("local").against.is_none() && method("local").by_round.is_empty());

    let unaligned = method("unaligned");
    let chosen = unaligned.chosen.as_ref().unwrap();
    assert_eq!((chosen.setting.as_str(), chosen.round), ("rate 0.3", 0));
    assert_eq!((unaligned.tried.len(), unaligned.tried.last().unwrap().validation), (6, None));
    let mine = method("mine");
    assert!(mine.chosen.as_ref().unwrap().at_edge && mine.tried.len() == 2);
    assert!(close(method("statistics").per_seed[0].picked.global, 0.71));
    // PCGrad is what the file says, and a network in which nodes tell what they reach alone is one like others: none is run
    // twice. Three seeds of: the start, 4, 6 and none of `mine`'s.
    assert_eq!(networks, 3 * (1 + 4 + 6), "{progress}");

    let text = study.to_string();
    for said in
        ["rate 0.03 (the last tried)", "against local: global", "0.770 ± 0.010", "3/3", "+45.0 ± 0.0", "24 rows"]
    {
        assert!(text.contains(said), "{said} is missing in\n{text}");
    }
    assert!(
        progress.contains("; about ") && progress.contains("unaligned     rate 1           diverged"),
        "{progress}"
    );
    let read = |path: &str| fs::read_to_string(home.path().join("out").join(path)).unwrap();
    assert!(read("summary.json").contains("\"reference\": \"local\""));
    let page = read("report.html");
    assert!(page.contains("class=\"band hue-1\"") && page.contains("Settings tried"), "{page}");
    assert_eq!(read("data/1/a/validation.csv").lines().count(), 25);
    assert_ne!(read("data/1/a/train.csv"), read("data/2/a/train.csv"));
    assert_eq!(read("data/1/a/validation.csv"), read("data/3/c/validation.csv"));
}

#[test]
fn what_cannot_be_compared_is_said() {
    let home = home("");
    let said = |methods: &[&str], reference| compare(home.path(), methods, reference, true).0.unwrap_err().to_string();
    assert!(said(&["magic"], None).starts_with("there is no method magic; there are local, centralised, full,"));
    assert_eq!(said(&["full", "mean"], Some("local")), "there is no method local; there are full, mean");
    let text = fs::read_to_string(home.path().join("small.toml")).unwrap();
    fs::write(home.path().join("small.toml"), text.replace("labelled_per_node = 4", "labelled_per_node = 20")).unwrap();
    assert!(said(&["full"], None).contains("leave no rows to choose settings by"));
}
