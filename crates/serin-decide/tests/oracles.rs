//! The statistics and the buckets against other software; see `oracles/README.md`.

use serde::Deserialize;
use serin_api::units::Weight;
use serin_decide::analysis::eprocess::{Direction, ln_e, ln_split_e};
use serin_decide::analysis::onesample;
use serin_decide::analysis::psi::{psi, psi_drifted, psi_noise};
use serin_decide::analysis::special::{chi_squared_quantile, gamma_p, ln_beta, ln_gamma, normal_cdf};
use serin_decide::route::{Bucketer, bucket_v1};

fn read<T: for<'de> Deserialize<'de>>(text: &str) -> T {
    serde_json::from_str(text).expect("the committed oracle parses")
}

/// Equal to `relative`, or to `absolute` near zero.
fn close(got: f64, wanted: f64, relative: f64, absolute: f64) -> bool {
    (got - wanted).abs() <= (wanted.abs() * relative).max(absolute)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BucketRow {
    seed: String,
    key: String,
    bucket: u32,
    unit_hash: String,
}

#[test]
fn buckets_and_unit_hashes_have_their_fixed_vectors() {
    let rows: Vec<BucketRow> = read(include_str!("oracles/buckets.json"));
    assert_eq!(rows.len(), 54);
    for row in rows {
        let bucketer = Bucketer::new(&row.seed);
        assert_eq!(bucketer.bucket(row.key.as_bytes()), row.bucket, "{} {}", row.seed, row.key);
        assert_eq!(bucket_v1(&row.seed, row.key.as_bytes()), row.bucket);
        assert_eq!(bucketer.unit_hash(row.key.as_bytes()).to_string(), row.unit_hash);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProcessRow {
    cells: Vec<(u32, u64, u64)>,
    tolerance: f64,
    too_few: bool,
    ln_e: f64,
}

#[test]
fn e_values_equal_their_definition_up_to_a_thousand_million_events() {
    let rows: Vec<ProcessRow> = read(include_str!("oracles/eprocess.json"));
    assert_eq!(rows.len(), 120);
    for row in rows {
        let cells: Vec<(f64, u64, u64)> =
            row.cells.iter().map(|(w, n, c)| (Weight::from_parts(*w).probability(), *n, *c)).collect();
        let direction = if row.too_few { Direction::TooFew } else { Direction::TooMany };
        let got = ln_e(&cells, row.tolerance, direction);
        assert!(close(got, row.ln_e, 1e-9, 1e-6), "{cells:?} {direction:?}: {got}, want {}", row.ln_e);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SplitRow {
    weight: u32,
    control: u64,
    candidate: u64,
    ln_e: f64,
}

#[test]
fn the_split_is_checked_as_savvi_does() {
    let rows: Vec<SplitRow> = read(include_str!("oracles/split.json"));
    assert!(rows.len() >= 20, "{}", rows.len());
    for row in &rows {
        let w = Weight::from_parts(row.weight).probability();
        let got = ln_split_e(&[(w, row.control, row.candidate)]);
        assert!(close(got, row.ln_e, 1e-9, 1e-8), "{w} {} {}: {got}, want {}", row.control, row.candidate, row.ln_e);
    }
    // Cells multiply.
    let cells = [(0.1, 880, 120), (0.5, 500, 480)];
    let sum: f64 = cells.iter().map(|c| ln_split_e(&[*c])).sum();
    assert!(close(ln_split_e(&cells), sum, 1e-12, 0.0));
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Special {
    ln_gamma: Vec<(f64, f64)>,
    ln_beta: Vec<(f64, f64, f64)>,
    gamma_p: Vec<(f64, f64, f64)>,
    normal_cdf: Vec<(f64, f64)>,
    chi_squared_quantile: Vec<(f64, f64, f64)>,
}

#[test]
fn special_functions_equal_scipys() {
    let special: Special = read(include_str!("oracles/special.json"));
    for (x, wanted) in special.ln_gamma {
        assert!(close(ln_gamma(x), wanted, 1e-13, 1e-13), "ln_gamma({x}) = {}, want {wanted}", ln_gamma(x));
    }
    for (a, b, wanted) in special.ln_beta {
        // Large arguments of different size cancel, in scipy as here.
        let scale = ln_gamma(a).abs().max(ln_gamma(b).abs()).max(ln_gamma(a + b).abs());
        let got = ln_beta(a, b);
        assert!(close(got, wanted, 1e-12, scale * 1e-13 + 1e-13), "ln_beta({a}, {b}) = {got}, want {wanted}");
    }
    for (a, x, wanted) in special.gamma_p {
        assert!(close(gamma_p(a, x), wanted, 1e-12, 1e-13), "gamma_p({a}, {x}) = {}, want {wanted}", gamma_p(a, x));
    }
    for (z, wanted) in special.normal_cdf {
        assert!(close(normal_cdf(z), wanted, 0.0, 1e-13), "normal_cdf({z}) = {}, want {wanted}", normal_cdf(z));
    }
    for (p, k, wanted) in special.chi_squared_quantile {
        let got = chi_squared_quantile(p, k);
        assert!(close(got, wanted, 1e-10, 1e-13), "chi_squared_quantile({p}, {k}) = {got}, want {wanted}");
    }
    assert!(ln_gamma(0.0).is_nan() && ln_gamma(-1.0).is_nan() && gamma_p(0.0, 1.0).is_nan());
}

#[derive(Deserialize)]
struct PsiRow {
    control: Vec<u64>,
    candidate: Vec<u64>,
    psi: f64,
    noise: f64,
}

#[test]
fn psi_and_its_noise_equal_numpys_and_scipys() {
    let rows: Vec<PsiRow> = read(include_str!("oracles/psi.json"));
    for row in rows {
        let got = psi(&row.control, &row.candidate).expect("both histograms hold something");
        assert!(close(got, row.psi, 1e-12, 0.0), "{got}, want {}", row.psi);
        let (n, m) = (row.control.iter().sum(), row.candidate.iter().sum());
        assert!(close(psi_noise(n, m, row.control.len(), 0.999), row.noise, 1e-10, 0.0));
        assert_eq!(psi_drifted(&row.control, &row.candidate), Some(row.psi > row.noise.max(0.1)));
    }
    assert_eq!((psi(&[0, 0], &[1, 2]), psi(&[1], &[1, 2])), (None, None));
    assert_eq!(psi_noise(100, 100, 1, 0.999), 0.0);
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OneSampleRow {
    failures: u64,
    requests: u64,
    level: f64,
    limit: f64,
    clopper_pearson: f64,
    candidate: (u64, u64),
    tolerance: f64,
    ln_e: Option<f64>,
}

#[test]
fn the_one_sample_watch_equals_its_definition_and_is_never_below_clopper_and_pearson() {
    let rows: Vec<OneSampleRow> = read(include_str!("oracles/onesample.json"));
    for row in rows {
        let limit = onesample::failure_limit(row.failures, row.requests, row.level);
        assert!(close(limit, row.limit, 1e-9, 1e-12), "{limit}, want {}", row.limit);
        assert!(limit >= row.clopper_pearson * (1.0 - 1e-9));
        let got = onesample::ln_e((row.failures, row.requests), row.candidate, row.tolerance, row.level * 2.0);
        match (got, row.ln_e) {
            (Some(got), Some(wanted)) => assert!(close(got, wanted, 1e-8, 1e-8), "{got}, want {wanted}"),
            (got, wanted) => assert_eq!(got.is_some(), wanted.is_some()),
        }
    }
    assert_eq!(onesample::failure_limit(0, 0, 0.05), 1.0);
    assert_eq!(onesample::ln_e((0, 0), (1, 10), 1.0, 0.05), None);
}
