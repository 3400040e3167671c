//! temp
use heterotune_scenarios::world::*;
fn main() {
    let mut o = Options::default();
    let args: Vec<String> = std::env::args().skip(1).collect();
    for pair in args.chunks(2) {
        let v = pair[1].as_str();
        match pair[0].as_str() {
            "nodes" => o.nodes = v.parse().unwrap(),
            "rounds" => o.rounds = v.parse().unwrap(),
            "seed" => o.seed = v.parse().unwrap(),
            "loss" => o.loss = v.parse().unwrap(),
            "churn" => o.churn = v.parse().unwrap(),
            "crash" => o.crash = v.parse().unwrap(),
            "skew" => o.skew_s = v.parse().unwrap(),
            "founders" => o.founders = v.parse().unwrap(),
            "threads" => o.threads = v.parse().unwrap(),
            "partition" => o.partition = Some(v.parse().unwrap()),
            "delay" => o.delay = v.parse().unwrap(),
            "genesis" => o.genesis = v == "on",
            "closing" => o.closing = Options::closing(v).unwrap(),
            "ae" => o.anti_entropy = v == "on",
            "lie" => o.liars.push(v.parse().unwrap()),
            x => panic!("{x}"),
        }
    }
    match simulate(&o) {
        Ok(r) => println!("{r}\n{}", r.to_json()),
        Err(e) => println!("{e}"),
    }
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", s.lines().filter(|l| l.starts_with("VmHWM")).collect::<String>());
}
