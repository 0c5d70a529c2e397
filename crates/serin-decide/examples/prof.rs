fn main() {
    let plan: serin_api::resources::gates::RolloutPlan = serde_saphyr::from_str(include_str!("../tests/specs/four-gates.yaml")).unwrap();
    let rate: f64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let s = serin_decide::simulate::Scenario { plan, requests_per_second: rate, ..Default::default() };
    let t = std::time::Instant::now();
    for seed in 0..40 { serin_decide::simulate::run(&s, seed).unwrap(); }
    println!("{rate}/s: {:.2?} per run", t.elapsed() / 40);
}
