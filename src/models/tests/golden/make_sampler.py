"""Writes what the sampler's methods make of a known denoiser, for `sampler.rs` to compare with.

    python3 make_sampler.py > sampler.json

Written from the papers, in double precision: Karras et al. 2022 (arXiv 2206.00364), algorithms 1 and 2; Lu et al. 2022
(arXiv 2211.01095), algorithm 2 with lambda = -ln sigma. The denoiser is smooth and bends, and is shifted by the class:
D(x; sigma) = x / (1 + 4 sigma^2) + a sin(x / sqrt(1 + sigma^2)) + b, with b = 0.5 for class 0, -0.3 for class 1 and 0
for no class; a = 0.2, and 0.1 for the guide. Noise is a formula over integers (`pattern` of make_golden.py).
Needs: numpy, torch.
"""
import json
import numpy as np

from make_golden import pattern

SHIFT = np.array([0.5, -0.3, 0.0])
PICTURES, VALUES = 4, 12           # [4, 3, 2, 2]


def noise(stream):
    return 1.5 * pattern(PICTURES * VALUES, stream).reshape(PICTURES, VALUES)


def denoise(x, sigma, labels, bend=0.2):
    return x / (1 + 4 * sigma**2) + bend * np.sin(x / np.sqrt(1 + sigma**2)) + SHIFT[labels][:, None]


def sample(method="heun", steps=7, lo=0.02, hi=20.0, rho=7.0, churn=(0.0, 0.0, np.inf, 1.0), guidance=1.0,
           interval=(0.0, np.inf), guide=False):
    labels, none = np.array([0, 1, 1, 0]), np.full(4, 2)
    amount, s_min, s_max, s_noise = churn

    def estimate(x, sigma):
        own = denoise(x, sigma, labels)
        if guidance == 1.0 or not interval[0] < sigma <= interval[1]:
            return own
        other = denoise(x, sigma, labels, 0.1) if guide else denoise(x, sigma, none)
        return other + guidance * (own - other)

    i = np.arange(steps)
    levels = (hi ** (1 / rho) + i / (steps - 1) * (lo ** (1 / rho) - hi ** (1 / rho))) ** rho
    levels = np.append(levels, 0.0)
    x, old = levels[0] * noise(0), None
    for i in range(steps):
        t, t_next = levels[i], levels[i + 1]
        if method == "dpmpp_2m":
            d = estimate(x, t)
            if t_next == 0:
                x = d
                continue
            lam, lam_next = -np.log(t), -np.log(t_next)
            h = lam_next - lam
            if old is None:
                mixed = d
            else:
                r = (lam + np.log(levels[i - 1])) / h
                mixed = (1 + 1 / (2 * r)) * d - 1 / (2 * r) * old
            x, old = t_next / t * x - (np.exp(-h) - 1) * mixed, d
            continue
        gamma = min(amount / steps, np.sqrt(2) - 1) if s_min <= t <= s_max else 0.0
        t_hat = t + gamma * t
        x = x + np.sqrt(t_hat**2 - t**2) * s_noise * noise(i + 1)
        d = (x - estimate(x, t_hat)) / t_hat
        ahead = x + (t_next - t_hat) * d
        if method == "heun" and t_next > 0:
            d_next = (ahead - estimate(ahead, t_next)) / t_next
            ahead = x + (t_next - t_hat) * (0.5 * d + 0.5 * d_next)
        x = ahead
    return [float(value) for value in x.ravel()]


CHURN = (3.0, 0.05, 10.0, 1.007)
print(json.dumps({
    "heun": sample(),
    "euler": sample("euler"),
    "dpmpp_2m": sample("dpmpp_2m"),
    "range": sample(lo=0.1, hi=5.0, rho=3.0),
    "churn": sample(churn=CHURN),
    "euler_churn": sample("euler", churn=CHURN),
    "guidance": sample(guidance=2.0),
    "interval": sample(guidance=2.0, interval=(0.28, 2.9)),
    "guide": sample(guidance=1.7, guide=True),
    "dpmpp_2m_interval_guide": sample("dpmpp_2m", guidance=1.7, interval=(0.28, 2.9), guide=True),
}, indent=1))
