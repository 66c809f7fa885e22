"""Writes what the formulas of mlops/statistics have to come to, from mpmath in 30 digits, and scipy agrees.

python3 xtask/python/statistics_oracle.py --out DIRECTORY    writes one CSV for each formula
python3 xtask/python/statistics_oracle.py --check DIRECTORY  fails where a file there says something else

Integrals are taken by quadrature around the peak of the integrand, which is no way in which the Rust goes, and where
scipy does not underflow or cancel it has to agree.
"""

import argparse
import csv
import functools
import io
import math
import multiprocessing
from pathlib import Path

import mpmath
import scipy.special
from mpmath import mp, mpf

mp.dps = 30

LIMITS = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9]
TOTALS = [1, 2, 3, 5, 10, 59, 100, 299, 1000, 2995, 18_000, 10**5, 10**6, 10**7, 10**8, 10**9]
# What two ways of computing the same may differ by, relative to the larger of one and the value.
AGREE = 1e-9


def failures(total, rate):
    """How many of `total` may fail: none, all, and what lies around `rate`."""
    expected, deviation = total * rate, math.sqrt(total * rate * (1 - rate))
    around = [expected + deviation * step for step in (-6, -2, 0, 2, 4, 8, 30)]
    chosen = [0, 1, 2, 5, total // 2, total - 1, total, 2 * expected, 10 * expected, *around]
    return sorted({round(count) for count in chosen if 0 <= round(count) <= total})


@functools.lru_cache(maxsize=64)
def ln_integral(a, b, low, high):
    """ln of the integral of p^(a-1) (1-p)^(b-1) from `low` to `high`."""
    a, b, low, high = mpf(a), mpf(b), mpf(low), mpf(high)
    if low == 0 and high == 1:
        return mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(a + b)
    height = lambda p: (a - 1) * mpmath.log(p) + (b - 1) * mpmath.log1p(-p)
    points = panels(a, b, low, high, height)
    middles = [height((left + right) / 2) for left, right in zip(points, points[1:])]
    top = max(middles)
    total = mpf(0)
    for left, right, middle in zip(points, points[1:], middles):
        highest = max(middle, *(height(end) for end in (left, right) if 0 < end < 1))
        if right == 1 and b < 2:
            # 1-p = u^(1/b): the pole is gone.
            inside = lambda u: mpmath.exp((a - 1) * mpmath.log1p(-(u ** (1 / b))) - top) / b
            total += mpmath.quad(inside, [0, (1 - left) ** b])
        elif highest > top - 60 and right == 1 and b < 40:
            total += mpmath.quad(lambda p: mpmath.exp(height(p) - top), [left, right])  # (1-p)^b is not smooth there
        elif highest > top - 60:
            total += gauss(lambda p: mpmath.exp(height(p) - top), left, right)
    return mpmath.log(total) + top


def panels(a, b, low, high, height):
    """Where to cut the integral: around the peak, in pieces that are no wider than the peak is."""
    slope = lambda p: (a - 1) / p - (b - 1) / (1 - p)
    bend = lambda p: abs((a - 1) / p**2 + (b - 1) / (1 - p) ** 2)
    inner = (a - 1) / (a + b - 2) if a > 1 and b > 1 else None
    if inner is not None and low <= inner <= high:
        peak, width = inner, 1 / mpmath.sqrt(bend(inner))
    else:
        peak = max((end for end in (low, high) if 0 < end < 1), key=height)
        width = 1 / max(abs(slope(peak)), mpmath.sqrt(bend(peak)), 1 / (high - low))
    reaches = (0, 1, 3, 7, 15, 30, 60, 120, 500, 2000)
    points = {min(max(peak + width * side * reach, low), high) for side in (-1, 1) for reach in reaches}
    if high == 1 and b < 40:
        points |= {max(1 - mpf(reach) * max(b, 1) / max(a, 1), low) for reach in reaches}
    return sorted(points | {low, high})


@functools.cache
def rule():
    """Gauss and Legendre's rule of 24 points, in all digits."""
    nodes = scipy.special.roots_legendre(24)[0]
    legendre = lambda x: mpmath.legendre(24, x)
    exact = [mpmath.findroot(legendre, mpf(float(node))) for node in nodes]
    return [(x, 2 * (1 - x**2) / (24 * mpmath.legendre(23, x)) ** 2) for x in exact]


def gauss(f, left, right):
    middle, half = (left + right) / 2, (right - left) / 2
    return half * sum(weight * f(middle + half * node) for node, weight in rule())


def agree(value, other, size, what):
    """Fails where the two differ by more than what doubles lose in sums of terms as large as `size`."""
    lost = AGREE * max(1, abs(value)) + 1e-15 * size
    assert abs(value - other) <= lost, f"{what}: {value} by quadrature, {other} by scipy"


def ln_e(case):
    """ln of the mixture e-value: Beta(1/2, (1-p0)/(2 p0)) above p0, against p0."""
    limit, failed, total = case
    p0 = mpf(limit)
    a, b = mpf(1) / 2, (1 - p0) / (2 * p0)
    prior, posterior = ln_integral(a, b, p0, 1), ln_integral(a + failed, b + total - failed, p0, 1)
    value = posterior - prior - failed * mpmath.log(p0) - (total - failed) * mpmath.log1p(-p0)
    above = scipy.special.betaincc(float(a + failed), float(b + total - failed), limit)
    if total <= 10**5 and above > 1e-200:
        plain = scipy.special.betaln(float(a + failed), float(b + total - failed)) + math.log(above)
        plain -= scipy.special.betaln(0.5, float(b)) + math.log(scipy.special.betaincc(0.5, float(b), limit))
        plain -= failed * math.log(limit) + (total - failed) * math.log1p(-limit)
        agree(float(value), plain, scipy.special.gammaln(float(b) + total), f"ln E of {case}")
    return [limit, failed, total, value]


def bounds(case):
    """The Clopper-Pearson bounds, each alone at `alpha`."""
    failed, total, alpha = case
    lower = upper = None
    if failed < total:
        scipys = scipy.special.betainccinv(failed + 1, total - failed, alpha)
        upper = quantile(failed + 1, total - failed, 1 - mpf(alpha), mpf(alpha))
        same(upper, scipys, case)
    if failed > 0:
        scipys = scipy.special.betaincinv(failed, total - failed + 1, alpha)
        lower = quantile(failed, total - failed + 1, mpf(alpha), 1 - mpf(alpha))
        same(lower, scipys, case)
    return [failed, total, alpha, 0 if lower is None else lower, 1 if upper is None else upper]


def same(bound, scipys, case):
    """Fails where scipy says something else. Beyond a million it is wrong now and then: by half for 1000 of 10^9."""
    assert case[1] > 10**6 or abs(float(bound) / scipys - 1) < AGREE, f"{case}: {bound}, scipy says {scipys}"


def quantile(a, b, below, above):
    """Where a Beta(a, b) has `below` below it, by Newton's method on the logarithms, from the mean."""
    whole = ln_integral(a, b, 0, 1)
    x = mpf(a) / (a + b)
    for _ in range(60):
        ln_density = a * mpmath.log(x) + (b - 1) * mpmath.log1p(-x) - whole  # of ln x
        if below < above:
            ln_share = ln_integral(a, b, 0, x) - whole
            step = (mpmath.log(below) - ln_share) * mpmath.exp(ln_share - ln_density)
        else:
            ln_share = ln_integral(a, b, x, 1) - whole
            step = (ln_share - mpmath.log(above)) * mpmath.exp(ln_share - ln_density)
        step = max(min(step, mpf(1)), mpf(-1))  # from far away
        # Above 1 there is nothing: half of the way to it instead.
        x = x * mpmath.exp(step) if x * mpmath.exp(step) < 1 else (1 + x) / 2
        if abs(step) < 1e-9:  # and the next one would be the square of it
            return x
    raise AssertionError(f"the quantile of Beta({a}, {b}) with {below} below it was not found")


def ln_bayes_factor(case):
    """ln of the Dirichlet-multinomial Bayes factor of counts against shares."""
    shares, concentration, counts = case
    whole = sum(mpf(share) for share in shares)
    shares_exact = [mpf(share) / whole for share in shares]
    alphas = [mpf(concentration) * share for share in shares_exact]
    total = sum(counts)
    value = mpmath.loggamma(mpf(concentration)) - mpmath.loggamma(mpf(concentration) + total)
    for alpha, share, count in zip(alphas, shares_exact, counts):
        value += mpmath.loggamma(alpha + count) - mpmath.loggamma(alpha) - count * mpmath.log(share)
    joined = lambda values: " ".join(repr(value) for value in values)
    return [joined(shares), concentration, joined(counts), value]


def band(case):
    """The time-uniform band of an empirical distribution (Howard and Ramdas 2022, with A = 0.85)."""
    total, alpha = case
    inside = (mpmath.log(mpmath.log(mpmath.e * total)) + mpf(8) / 10 * mpmath.log(mpf(1612) / mpf(alpha))) / total
    return [total, alpha, mpf(85) / 100 * mpmath.sqrt(inside)]


def e_cases():
    return [(limit, failed, total) for limit in LIMITS for total in TOTALS for failed in failures(total, limit)]


def bound_cases():
    rates = [1e-6, 1e-3, 0.05, 0.5]
    counts = sorted({(failed, total) for total in TOTALS for rate in rates for failed in failures(total, rate)})
    alphas = [0.05, 0.01, 1e-3, 1e-9]
    # Each count with one level, so that the levels take turns; each level with all counts would say little more.
    return [(failed, total, alphas[index % len(alphas)]) for index, (failed, total) in enumerate(counts)]


def bayes_cases():
    divisions = [[0.5, 0.5], [0.95, 0.05], [0.999, 0.001], [1.0, 2.0], [0.25] * 4, [0.1, 0.2, 0.3, 0.4], [1e-6, 1 - 1e-6]]
    cases = []
    for shares in divisions:
        for concentration in (1.0, 2.0, 100.0, 10000.0):
            for total in (0, 1, 3, 10, 1000, 10**6, 10**9):
                for lean in (0.0, 1e-3, 0.1, 0.9, 1.0):
                    first = round(total * (shares[0] / sum(shares) * (1 - lean) + lean))
                    rest = total - first
                    others = [rest // (len(shares) - 1)] * (len(shares) - 1)
                    others[-1] += rest - sum(others)
                    cases.append((tuple(shares), concentration, (first, *others)))
    return sorted(set(cases))


def band_cases():
    return [(total, alpha) for total in (1, 2, 10, 100, 10**4, 10**6, 10**9) for alpha in (0.1, 0.05, 1e-3, 1e-9)]


FORMULAS = {
    "ln_e": ("limit,failures,total,ln_e", ln_e, e_cases),
    "bounds": ("failures,total,alpha,lower,upper", bounds, bound_cases),
    "ln_bayes_factor": ("shares,concentration,counts,ln_bayes_factor", ln_bayes_factor, bayes_cases),
    "band": ("total,alpha,radius", band, band_cases),
}


def digits(value):
    """As many as are known, without what rounding leaves of a 0."""
    return mpmath.nstr(value, 13) if abs(value) > 1e-20 else "0.0"


def table(formula, pool):
    """The file of a formula."""
    header, compute, cases = FORMULAS[formula]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(header.split(","))
    for row in pool.imap(compute, cases(), chunksize=16):
        lines.writerow([digits(cell) if isinstance(cell, mpf) else cell for cell in row])
    return text.getvalue()


def check(path, wanted):
    """Fails where the file says something else than `wanted`."""
    found = path.read_text().splitlines()
    wanted = wanted.splitlines()
    assert len(found) == len(wanted), f"{path}: {len(found)} lines, {len(wanted)} wanted; write it anew with --out"
    for number, (ours, theirs) in enumerate(zip(found, wanted), start=1):
        assert ours == theirs, f"{path}:{number}: {ours}, but it is {theirs}; write it anew with --out"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="the directory to write to")
    where.add_argument("--check", type=Path, help="the directory whose files are held against what comes now")
    args = parser.parse_args()
    with multiprocessing.Pool() as pool:
        for formula in FORMULAS:
            text = table(formula, pool)
            if args.out:
                args.out.mkdir(parents=True, exist_ok=True)
                (args.out / f"{formula}.csv").write_text(text)
            else:
                check(args.check / f"{formula}.csv", text)
            print(f"{formula}: {len(text.splitlines()) - 1} cases")


if __name__ == "__main__":
    main()
