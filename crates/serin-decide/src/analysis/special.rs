//! The few special functions that the statistics need.

/// ln(sqrt(2 pi)).
const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_7;

/// Logarithm of the gamma function for x > 0; relative error below 1e-14. NaN for x that is not positive.
///
/// # Source
/// Stirling's series (Abramowitz and Stegun 6.1.41) from 15 on; below it the recurrence Γ(x+1) = xΓ(x).
#[must_use]
pub fn ln_gamma(x: f64) -> f64 {
    if x.is_nan() || x <= 0.0 {
        return f64::NAN;
    }
    let (mut x, mut product) = (x, 1.0);
    while x < 15.0 {
        product *= x;
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse
        * (1.0 / 12.0
            - square
                * (1.0 / 360.0
                    - square
                        * (1.0 / 1260.0
                            - square * (1.0 / 1680.0 - square * (1.0 / 1188.0 - square * 691.0 / 360_360.0)))));
    (x - 0.5) * x.ln() - x + LN_SQRT_2PI + series - f64::ln(product)
}

/// Logarithm of the beta function for a, b > 0.
#[must_use]
pub fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Regularised lower incomplete gamma function P(a, x) for a > 0, x >= 0: in [0, 1], absolute error below 1e-12.
///
/// # Source
/// Series and Lentz's continued fraction (Press et al., Numerical Recipes, 6.2).
#[must_use]
pub fn gamma_p(a: f64, x: f64) -> f64 {
    if a.is_nan() || x.is_nan() || a <= 0.0 || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return 0.0;
    }
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
        for _ in 0..1_000 {
            n += 1.0;
            term *= x / n;
            sum += term;
            if term < sum * 1e-16 {
                break;
            }
        }
        sum * scale
    } else {
        let tiny = 1e-300;
        let mut b = x + 1.0 - a;
        let mut c = 1.0 / tiny;
        let mut d = 1.0 / b;
        let mut h = d;
        for i in 1..1_000 {
            let an = -f64::from(i) * (f64::from(i) - a);
            b += 2.0;
            d = an * d + b;
            d = if d.abs() < tiny { tiny } else { d };
            c = b + an / c;
            c = if c.abs() < tiny { tiny } else { c };
            d = 1.0 / d;
            h *= d * c;
            if (d * c - 1.0).abs() < 1e-16 {
                break;
            }
        }
        1.0 - scale * h
    }
}

/// Quantile of the chi-squared distribution: the x with P(X <= x) = `p`, for `p` in (0, 1) and at least one degree of freedom.
#[must_use]
pub fn chi_squared_quantile(p: f64, degrees: f64) -> f64 {
    bisect(0.0, degrees + 100.0 * (2.0 * degrees).sqrt() + 1_000.0, |x| gamma_p(degrees / 2.0, x / 2.0) >= p)
}

/// Standard normal distribution function; absolute error below 1e-12.
#[must_use]
pub fn normal_cdf(z: f64) -> f64 {
    let tail = gamma_p(0.5, z * z / 2.0);
    if z >= 0.0 { 0.5 + tail / 2.0 } else { 0.5 - tail / 2.0 }
}

/// The point in [low, high] where a monotone condition turns true, to 60 halvings.
pub(crate) fn bisect(low: f64, high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (low, high);
    for _ in 0..100 {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if holds(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}
