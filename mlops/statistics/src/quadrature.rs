//! The integral of a smooth hump, in a fixed number of evaluations.

/// Half of the nodes of Gauss and Legendre's rule of 24 points, and their weights.
const RULE: [(f64, f64); 12] = [
    (0.06405689286260563, 0.12793819534675202),
    (0.1911188674736163, 0.12583745634682825),
    (0.3150426796961634, 0.1216704729278033),
    (0.4337935076260451, 0.11550566805372552),
    (0.5454214713888396, 0.10744427011596556),
    (0.6480936519369755, 0.09761865210411393),
    (0.7401241915785544, 0.0861901615319532),
    (0.820001985973903, 0.07334648141108016),
    (0.8864155270044011, 0.05929858491543636),
    (0.9382745520027328, 0.04427743881741941),
    (0.9747285559713095, 0.02853138862893356),
    (0.9951872199970213, 0.01234122979998869),
];

/// The integral of `f` from 0 to `end`: to 14 digits for what falls from its height at 0 to nothing as e^-x or
/// e^-x² do, where nothing is some e^-40.
pub(crate) fn integral(end: f64, f: impl Fn(f64) -> f64) -> f64 {
    let half = 0.5 * end;
    let pairs = RULE.iter().map(|(node, weight)| weight * (f(half * (1.0 - node)) + f(half * (1.0 + node))));
    half * pairs.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_exact_for_what_it_is_used_for() {
        let exponential = integral(40.0, |x| (-x).exp());
        assert!((exponential - 1.0).abs() < 1e-13, "{exponential}");
        let hump = integral(9.0, |x| (-x * x / 2.0).exp());
        assert!((hump / (std::f64::consts::PI / 2.0).sqrt() - 1.0).abs() < 1e-13, "{hump}");
        let cube = integral(2.0, |x| x * x * x);
        assert!((cube - 4.0).abs() < 1e-14, "{cube}");
    }
}
