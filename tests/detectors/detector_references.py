"""Every method once more: NumPy and torch in float64, written from the papers, row by row.

A reference takes a `Case` and returns one score a test row.
"""

from types import SimpleNamespace

import numpy as np
import toy_detection as toy
from scipy.ndimage import uniform_filter1d
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import weibull_min

from jaxood.heads import CosineHead, NormLinearHead


class Case(SimpleNamespace):
    """Training and test features and logits, the head's numbers, and the test images."""


def case_of(kind: str) -> Case:
    head, train, labels, images, test = toy.data(kind)

    def penultimate(pooled):
        if isinstance(head, CosineHead):
            return unit(pooled)
        if not isinstance(head, NormLinearHead):
            return pooled
        centred = pooled - pooled.mean(axis=1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + head.epsilon)
        return normed * np.float64(head.scale) + np.float64(head.shift)

    if isinstance(head, CosineHead):
        weight, bias = head.scale * unit(np.float64(head.columns).T), np.zeros(toy.CLASSES)
    else:
        weight, bias = np.float64(head.kernel).T, np.float64(head.bias)

    def classify(h):
        return h @ weight.T + bias

    def logits(pooled):
        return classify(penultimate(pooled))

    train_z, z = np.float64(train.pooled), np.float64(test.pooled)
    train_images, _ = toy.images_of(480, 11)
    return Case(
        head=head, penultimate=penultimate, logits_of=logits, classify=classify,
        weight=weight, bias=bias, labels=labels, train_images=train_images, images=images,
        train=train_z, test=z,
        train_logits=logits(train_z), logits=logits(z),
        train_h=penultimate(train_z), h=penultimate(z),
    )  # fmt: skip


def energy_of(logits):
    return logsumexp(logits, axis=1)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# Scores of the logits alone.


def gen(case, gamma=0.1, top=100):
    scores = []
    for p in softmax(case.logits, axis=1):
        p = np.sort(p)[::-1][:top]
        scores.append(-sum(value**gamma * (1 - value) ** gamma for value in p))
    return np.array(scores)


def entropy(case):
    p = softmax(case.logits, axis=1)
    return np.sum(p * np.log(p), axis=1)


def kl(case):
    k = toy.CLASSES
    p = softmax(case.logits, axis=1)
    divergence = np.sum((1 / k) * (np.log(1 / k) - np.log(p)), axis=1)
    return divergence + np.log(k)


def kl_matching(case):
    p_train, p_test = softmax(case.train_logits, axis=1), softmax(case.logits, axis=1)
    predicted = p_train.argmax(axis=1)
    typical = [p_train[predicted == k].mean(axis=0) for k in np.unique(predicted)]
    return np.array([-min(np.sum(p * np.log(p / q)) for q in typical) for p in p_test])


def temp_scaling(case):
    from scipy.optimize import minimize_scalar

    def loss(log_t):
        log_p = log_softmax(case.train_logits / np.exp(log_t), axis=1)
        return -log_p[np.arange(len(log_p)), case.labels].mean()

    found = minimize_scalar(loss, bounds=(-2.9, 2.9), method="bounded", options={"xatol": 1e-9})
    p = softmax(case.logits / np.exp(found.x), axis=1).max(axis=1)
    return np.log(p / (1 - p))


def openmax(case, alpha=10, tail=20):
    k = toy.CLASSES
    alpha, train, predicted = min(alpha, k), case.train_logits, case.train_logits.argmax(axis=1)
    models = []
    for label in range(k):
        right = train[(case.labels == label) & (predicted == label)]
        centre = right.mean(axis=0)
        largest = np.sort(np.linalg.norm(right - centre, axis=1))[-tail:]
        moved = largest - largest.min() + 10_000
        shape, _, scale = weibull_min.fit(moved, floc=0)
        models.append((centre, largest.min(), shape, scale))
    scores = []
    for v in case.logits:
        revised, unknown = v.copy(), 0.0
        for rank, label in enumerate(np.argsort(-v)[:alpha]):
            centre, least, shape, scale = models[label]
            distance = np.linalg.norm(v - centre) - least + 10_000
            w = weibull_min.cdf(distance, shape, 0, scale) * (alpha - rank) / alpha
            revised[label], unknown = v[label] * (1 - w), unknown + v[label] * w
        p = softmax(np.append(revised, unknown))
        scores.append(np.log(p[:-1].sum() / p[-1]))
    return np.array(scores)


# Scores of the features.


def knn(case, k=10):
    products = unit(case.h) @ unit(case.train_h).T
    return np.sort(products, axis=1)[:, -k]


def knn_pooled(case, k=10):
    products = unit(case.test) @ unit(case.train).T
    return np.sort(products, axis=1)[:, -k]


def nnguide(case, k=10):
    bank = energy_of(case.train_logits)[:, None] * unit(case.train)
    products = np.sort(unit(case.test) @ bank.T, axis=1)[:, -k:]
    return energy_of(case.logits) * products.mean(axis=1)


def residual_lengths(train, test, origin, dim):
    values, vectors = np.linalg.eig((train - origin).T @ (train - origin) / len(train))
    order = np.argsort(-values.real)
    basis = vectors.real[:, order[dim:]]
    return (np.linalg.norm((rows - origin) @ basis, axis=1) for rows in (train, test))


def vim(case, dim=toy.CHANNELS // 2):
    origin = -np.linalg.pinv(case.weight) @ case.bias
    train, test = residual_lengths(case.train_h, case.h, origin, dim)
    alpha = case.train_logits.max(axis=1).mean() / train.mean()
    return energy_of(case.logits) - alpha * test


def vim_nnguide(case, dim=toy.CHANNELS // 2):
    bank, rows = unit(case.train), unit(case.test)
    train, test = residual_lengths(bank, rows, bank.mean(axis=0), dim)
    alpha = case.train_logits.max(axis=1).mean() / train.mean()
    return energy_of(case.logits) - alpha * test


def residual(case, dim=toy.CHANNELS // 2):
    origin = -np.linalg.pinv(case.weight) @ case.bias
    return -list(residual_lengths(case.train_h, case.h, origin, dim))[1]


def distances(rows, mean, precision):
    return np.array([(row - mean) @ precision @ (row - mean) for row in rows])


def gaussians(train, labels):
    classes = range(toy.CLASSES)
    means = [train[labels == label].mean(axis=0) for label in classes]
    centred = np.concatenate([train[labels == label] - means[label] for label in classes])
    return means, np.linalg.pinv(centred.T @ centred / len(train), rcond=1e-6, hermitian=True)


def mahalanobis(case):
    means, precision = gaussians(case.train_h, case.labels)
    return -np.min([distances(case.h, mean, precision) for mean in means], axis=0)


def rmds(case):
    means, precision = gaussians(case.train_h, case.labels)
    whole = np.linalg.pinv(np.cov(case.train_h.T, bias=True), rcond=1e-6, hermitian=True)
    background = distances(case.h, case.train_h.mean(axis=0), whole)
    return -np.min([distances(case.h, mean, precision) - background for mean in means], axis=0)


def at_length_one(case):
    return Case(train_h=unit(case.train_h), h=unit(case.h), labels=case.labels)


def predicted_means(case):
    predicted = case.train_logits.argmax(axis=1)
    groups = [case.train_h[predicted == k] for k in range(toy.CLASSES)]
    return np.array([(g if len(g) else case.train_h).mean(axis=0) for g in groups])


def caref(case):
    means, tops = predicted_means(case), case.logits.argmax(axis=1)
    return np.array(
        [
            -sum(abs(z - m) for z, m in zip(row, means[top], strict=True)) / sum(map(abs, row))
            for row, top in zip(case.h, tops, strict=True)
        ]
    )


def cadref(case, by=energy_of):
    means, scores, mean_score = predicted_means(case), by(case.logits), by(case.train_logits).mean()
    found = []
    for row, logits, score in zip(case.h, case.logits, scores, strict=True):
        top, along, against = logits.argmax(), 0.0, 0.0
        for z, m, w in zip(row, means[top], case.weight[top], strict=True):
            if (z - m) * w > 0:
                along += abs(z - m)
            else:
                against += abs(z - m)
        found.append(-(along / score + against / mean_score) / np.abs(row).sum())
    return np.array(found)


def normal(seed, shape):
    """The draws are what a reference is given: the same as the detector's."""
    import jax

    return np.float64(jax.random.normal(seed, shape))


def weiper(case, repeats=100, delta=2.4, bins=100, lambda1=2.5, lambda2=0.25, s1=40, s2=15):
    import jax

    def logits(rows):
        found = []
        for repeat in range(repeats):
            noise = normal(jax.random.fold_in(jax.random.key(0), repeat), case.weight.T.shape).T
            size = np.linalg.norm(case.weight, axis=1, keepdims=True)
            found.append(rows @ (case.weight + delta * size * unit(noise)).T + case.bias)
        return np.stack(found, axis=1)  # [n, repeats, k]

    def shares(values, ends):
        rows = values.reshape(len(values), -1)
        return np.array([np.histogram(row, bins, ends)[0] / len(row) for row in rows])

    def smoothed(q, size):  # an even window reaches one further up than down
        return uniform_filter1d(q, size, mode="nearest", origin=size % 2 - 1)

    def divergence(p, q, floor):
        p, q = (p + floor) / np.sum(p + floor), (q + floor) / np.sum(q + floor)
        return np.sum(p * np.log(p / q)) + np.sum(q * np.log(q / p))

    train_logits, test_logits = logits(case.train_h), logits(case.h)
    ends, wide = ((rows.min(), rows.max()) for rows in (case.train_h, train_logits))
    p, p_wide = shares(case.train_h, ends).mean(axis=0), shares(train_logits, wide).mean(axis=0)
    first = [divergence(p, smoothed(q, s1), 0.01) for q in shares(case.h, ends)]
    second = [divergence(p_wide, smoothed(q, s2), 0.025) for q in shares(test_logits, wide)]
    sure = softmax(test_logits, axis=2).max(axis=2).mean(axis=1)
    return -(np.array(first) + lambda1 * np.array(second) - lambda2 * sure)


def left_over(train, test, variance):
    """The rows of `test` less their projections, by the singular values of `train`."""
    _, s, v = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)
    count = next(q for q in range(1, len(s)) if np.sum(s[:q] ** 2) >= variance * np.sum(s**2))
    centred = test - train.mean(axis=0)
    rest = [row - sum((row @ u) * u for u in v[:count]) for row in centred]
    return -np.linalg.norm(rest, axis=1)


def cop(case, variance=0.99):
    return left_over(unit(case.train_h), unit(case.h), variance)


def corp(case, variance=0.5, gamma=3.0):
    import jax

    first, second = jax.random.split(jax.random.key(0))
    c = toy.CHANNELS
    w = np.sqrt(2 * gamma) * normal(first, (c, 4 * c))
    u = np.float64(jax.random.uniform(second, (4 * c,), maxval=2 * np.pi))
    train, test = (
        np.sqrt(2 / (4 * c)) * np.cos(unit(rows) @ w + u) for rows in (case.train_h, case.h)
    )
    return left_over(train, test, variance)


def pnml(case):
    train, scores = unit(case.train_h), []
    precision = np.linalg.pinv(train.T @ train, rcond=1e-12, hermitian=True)
    for row in unit(case.h):
        x = row @ precision @ row
        p = softmax(case.classify(row[None])[0])
        genie = p / (p + (1 - p) * p ** (x / (1 + x)))
        scores.append(-np.log(genie.sum()) / np.log(len(p)))
    return np.array(scores)


def graduncertainty(case):
    """The gradients themselves, by torch."""
    import torch

    scores = []
    for row in case.h:
        parts = [torch.tensor(part, requires_grad=True) for part in (case.weight, case.bias)]
        p = torch.softmax(parts[0] @ torch.tensor(row) + parts[1], dim=0)
        ones = torch.ones_like(p)
        torch.nn.functional.binary_cross_entropy(p, ones, reduction="sum").backward()
        scores.append(sum(float((part.grad**2).sum()) for part in parts))
    return np.array(scores)


def mc_dropout(case, rate=0.5, samples=30):
    import jax

    shape = samples, toy.CHANNELS
    masks = np.asarray(jax.random.bernoulli(jax.random.key(0), 1 - rate, shape))
    total = [softmax(case.classify(case.h * mask / (1 - rate)), axis=1) for mask in masks]
    return np.mean(total, axis=0).max(axis=1)


def cosines(case, columns):
    return unit(case.test) @ unit(np.float64(columns).T).T


def mcm(case, temperature=1.0):
    return softmax(cosines(case, case.head.columns) / temperature, axis=1).max(axis=1)


def neglabel(case, groups=100, temperature=0.01):
    odds = []  # of P and 1 - P apart: P is 1 to float64's last bit
    texts = (cosines(case, columns) for columns in (case.head.columns, case.head.negatives))
    for known, foreign in zip(*(found / temperature for found in texts), strict=True):
        size, shares = len(foreign) // groups, []
        for group in range(groups):
            dealt = foreign[: size * groups][group::groups]
            p = softmax(np.concatenate([known, dealt]))
            shares.append([p[: len(known)].sum(), p[len(known) :].sum()])
        odds.append(np.log(np.divide(*np.mean(shares, axis=0))))
    return np.array(odds)


def standardised(case):
    mean, std = unit(case.train).mean(axis=0), unit(case.train).std(axis=0) + 1e-8
    return (unit(case.train) - mean) / std, (unit(case.test) - mean) / std


def mahalanobis_nnguide(case):
    train, test = standardised(case)
    groups = [train[case.labels == label] for label in range(toy.CLASSES)]
    mean_of_covariances = np.mean([np.cov(group.T, bias=True) for group in groups], axis=0)
    precision = np.linalg.pinv(mean_of_covariances, rcond=1e-6, hermitian=True)
    return -np.min([distances(test, group.mean(axis=0), precision) for group in groups], axis=0)


def ssd(case):
    train, test = standardised(case)
    precision = np.linalg.pinv(np.cov(train.T, bias=True), rcond=1e-6, hermitian=True)
    return -distances(test, train.mean(axis=0), precision)


def gmm(case, full=False, ridge=1e-6):
    """scikit-learn's density, of components that are given."""
    from sklearn.mixture import GaussianMixture

    c, k = toy.CHANNELS, toy.CLASSES
    groups = [case.train_h[case.labels == label] for label in range(k)]
    model = GaussianMixture(k, covariance_type="full")
    matrices = [np.cov(group.T, bias=True) for group in groups]
    if not full:
        matrices = [np.average(matrices, axis=0, weights=[len(group) for group in groups])] * k
    model.means_ = np.array([group.mean(axis=0) for group in groups])
    model.weights_ = np.array([len(group) / len(case.train_h) for group in groups])
    model.precisions_cholesky_ = np.array(
        [np.linalg.cholesky(np.linalg.inv(matrix + ridge * np.eye(c))) for matrix in matrices]
    )
    return model.score_samples(case.h)


def she(case):
    predicted, scores = case.train_logits.argmax(axis=1), []
    for row, top in zip(case.h, case.logits.argmax(axis=1), strict=True):
        right = (case.labels == top) & (predicted == top)
        scores.append(row @ case.train_h[right].mean(axis=0))
    return np.array(scores)


def fdbd(case, around_mean=True):
    centre, scores = case.train_h.mean(axis=0) * around_mean, []
    for row, v in zip(case.h, case.logits, strict=True):
        t = v.argmax()
        gaps = [
            abs(v[t] - v[j]) / np.linalg.norm(case.weight[t] - case.weight[j])
            for j in range(len(v))
            if j != t
        ]
        scores.append(np.mean(gaps) / np.linalg.norm(row - centre))
    return np.array(scores)


def nci(case, alpha=1e-4):
    centred = case.h - case.train_h.mean(axis=0)
    weights = case.weight[case.logits.argmax(axis=1)]
    cosine_times_norm = np.sum(centred * weights, axis=1) / np.linalg.norm(centred, axis=1)
    return cosine_times_norm + alpha * np.abs(case.h).sum(axis=1)


def gradnorm(case):
    """The gradient itself, by torch."""
    import torch

    scores = []
    for row in case.h:
        weight = torch.tensor(case.weight, requires_grad=True)
        logits = weight @ torch.tensor(row) + torch.tensor(case.bias)
        log_p, k = torch.log_softmax(logits, dim=0), toy.CLASSES
        torch.sum(1 / k * (np.log(1 / k) - log_p)).backward()
        scores.append(float(weight.grad.abs().sum()))
    return np.array(scores)


def relation(case):
    p_train, p_test = softmax(case.train_logits, axis=1), softmax(case.logits, axis=1)
    edges = np.maximum(unit(case.h) @ unit(case.train_h).T, 0) * (p_test @ p_train.T)
    return np.where(edges > 0.03, edges, 0).sum(axis=1)


# What needs the feature map or the image.


def torch_forward(case, images):
    """The same small network in torch: feature map [n, p, c], penultimate, logits."""
    import torch

    values = torch.cat(toy.patches(images), dim=-1)
    kernel = torch.tensor(np.float64(toy.PATCH_WEIGHTS))
    features = torch.relu(values @ kernel + torch.tensor(np.float64(toy.PATCH_BIAS)))
    features = features.flatten(1, 2)
    return features, *torch_tail(case, features)


def torch_tail(case, features):
    """From a feature map [n, p, c] to penultimate and logits."""
    import torch

    penultimate = features.mean(dim=1)
    if isinstance(case.head, NormLinearHead):
        scale, shift = (torch.tensor(np.float64(x)) for x in (case.head.scale, case.head.shift))
        size, epsilon = scale.shape, case.head.epsilon
        penultimate = torch.nn.functional.layer_norm(penultimate, size, scale, shift, epsilon)
    if isinstance(case.head, CosineHead):
        penultimate = torch.nn.functional.normalize(penultimate)
    weight, bias = torch.tensor(case.weight), torch.tensor(case.bias)
    return penultimate, penultimate @ weight.T + bias


def image_tensor(images):
    import torch

    return torch.tensor(np.float64(images), requires_grad=True)


def gram(case, orders=5):
    def statistics(images):
        features = torch_forward(case, image_tensor(images))[0].detach().numpy()
        rows = []
        for values in features:
            powers = [values**q for q in range(1, orders + 1)]
            sums = [(power.T @ power).sum(axis=1) for power in powers]
            rows.append(np.concatenate([s ** (1 / q) for q, s in enumerate(sums, 1)]))
        return np.array(rows)

    train, test = statistics(case.train_images), statistics(case.images)
    tops = case.train_logits.argmax(axis=1), case.logits.argmax(axis=1)
    return -gram_deviations(train, tops[0], test, tops[1])


def gram_deviations(train, predicted, test, tops):
    """Of one layer, over what is expected by the first tenth of each class."""

    def deviation(row, ranged):
        low, high = ranged.min(axis=0), ranged.max(axis=0)
        below = np.maximum(low - row, 0) / np.abs(low + 1e-6)
        above = np.maximum(row - high, 0) / np.abs(high + 1e-6)
        return np.sum(below + above)

    groups = {top: train[predicted == top] for top in np.unique(predicted)}
    tenths = {top: int(0.1 * len(group)) for top, group in groups.items()}
    ranged = {top: group[tenths[top] :] for top, group in groups.items()}
    expected = [deviation(row, ranged[t]) for t, g in groups.items() for row in g[: tenths[t]]]
    found = [deviation(row, ranged[top]) for row, top in zip(test, tops, strict=True)]
    return np.array(found) / np.mean(expected)


def multi_mahalanobis(case):
    return mahalanobis(Case(train_h=case.train, h=case.test, labels=case.labels))


def aggregate(case, score=mahalanobis, by="mean", layers=None):
    """By loops; every tenth training row is known, the others are what is fitted on."""
    known = np.arange(len(case.train)) % 10 == 9
    combined = []
    for train, test in layers or [(case.train, case.test)]:
        scores = [
            score(Case(train_h=train[~known], h=rows, labels=case.labels[~known]))
            for rows in (train[known], test)
        ]
        if by == "fisher":
            shares = [(1 + np.sum(scores[0] <= s)) / (1 + known.sum()) for s in scores[1]]
            combined.append(np.log(shares))
        else:
            combined.append((scores[1] - scores[0].mean()) / scores[0].std())
    how = {"mean": np.mean, "std": lambda z, axis: -np.std(z, axis), "fisher": np.sum}
    return how[by](combined, axis=0)


def nac(case, alpha=100.0, bins=50, filled=50):
    import torch

    def states(images):
        features = torch_forward(case, image_tensor(images))[0].detach().requires_grad_()
        logits = torch_tail(case, features)[1]
        (-torch.log_softmax(logits, dim=1).mean(dim=1)).sum().backward()
        return (features * features.grad).mean(dim=1).detach().numpy()

    return coverage(states(case.train_images), states(case.images), alpha, bins, filled)


def coverage(train, test, alpha, bins, filled):
    """Of one layer, with intervals of equal length, neuron by neuron."""
    train, test = (1 / (1 + np.exp(-alpha * rows)) for rows in (train, test))
    total = np.zeros(len(test))
    alive = [channel for channel in range(train.shape[1]) if (train[:, channel] != 0.5).any()]
    for channel in alive:
        counts = np.histogram(train[:, channel], bins, (0, 1))[0]
        index = np.minimum(np.floor(test[:, channel] * bins).astype(int), bins - 1)
        total += np.minimum(counts[index] / filled, 1)
    return total / len(alive)


def odin(case, temperature=1000.0, epsilon=0.0014):
    import torch

    images = image_tensor(case.images)
    logits = torch_forward(case, images)[2] / temperature
    loss = torch.nn.functional.cross_entropy(logits, logits.argmax(dim=1))
    loss.backward()
    std = torch.tensor([63.0, 62.1, 66.7], dtype=torch.float64) / 255
    nudged = images - epsilon * torch.sign(images.grad) / std
    p = torch.softmax(torch_forward(case, nudged)[2] / temperature, dim=1)
    return np.log(toy.CLASSES * p.max(dim=1).values.detach().numpy())


def i_odin(case, temperature=1000.0, epsilon=0.0014):
    import torch

    images = image_tensor(case.images)
    log_p = torch.log_softmax(torch_forward(case, images)[2] / temperature, dim=1)
    log_p.max(dim=1).values.sum().backward()
    std, nudged = np.array([63.0, 62.1, 66.7]) / 255, np.float64(case.images)
    for image, gradient in zip(nudged, images.grad.numpy(), strict=True):
        y, x, colour = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        image[y, x, colour] += epsilon * np.sign(gradient[y, x, colour]) / std[colour]
    p = torch.softmax(torch_forward(case, torch.tensor(nudged))[2] / temperature, dim=1)
    return np.log(toy.CLASSES * p.max(dim=1).values.numpy())


def rankfeat(case):
    features = torch_forward(case, image_tensor(case.images))[0].detach().numpy()
    u, s, v = np.linalg.svd(features, full_matrices=False)
    features = features - s[:, :1, None] * u[:, :, :1] @ v[:, :1]
    return energy_of(case.logits_of(features.mean(axis=1)))


# Transforms, each before the energy.


def react(case, percentile=90.0):
    threshold = np.percentile(case.train_h, percentile)
    return energy_of(case.classify(np.minimum(case.h, threshold)))


def vra(case, low=10.0, high=90.0, below="clip"):
    low, high = np.percentile(case.train_h, low), np.percentile(case.train_h, high)
    rows = [
        [high if x > high else ((low if below == "clip" else 0.0) if x < low else x) for x in row]
        for row in case.h
    ]
    return energy_of(case.classify(np.array(rows)))


def shaped(case, percentile, shape):
    rows = []
    for x in case.h:
        k = len(x) - int(np.round(len(x) * percentile / 100))
        kept = np.isin(np.arange(len(x)), np.argsort(-x, kind="stable")[:k])
        rows.append(shape(x, kept, x.sum(), x[kept].sum()))
    return energy_of(case.classify(np.array(rows)))


def ash_p(case):
    return shaped(case, 60, lambda x, kept, s1, s2: x * kept)


def ash_b(case):
    return shaped(case, 65, lambda x, kept, s1, s2: kept * s1 / kept.sum())


def ash_s(case):
    return shaped(case, 90, lambda x, kept, s1, s2: x * kept * np.exp(s1 / s2))


def scale(case):
    return shaped(case, 85, lambda x, kept, s1, s2: x * np.exp(s1 / s2))


def lts(case, percentile=95):
    scaled = []
    for x, v in zip(np.maximum(case.h, 0), case.logits, strict=True):
        k = max(len(x) - int(np.round(len(x) * percentile / 100)), 1)
        scaled.append(v * (x.sum() / np.sort(x)[-k:].sum()) ** 2)
    return energy_of(np.array(scaled))


def optfs(case):
    low, high = np.quantile(case.train_h, [0.001, 0.999])
    edges, predicted = np.linspace(low, high, 101), case.train_logits.argmax(axis=1)
    given = case.weight[predicted] * case.train_h

    def index(rows):
        return np.where(rows < high, np.searchsorted(edges, rows, side="right") - 1, -1)

    v = np.array([given[index(case.train_h) == i].sum() for i in range(100)]) / len(given)
    theta = np.append(1000 * v / np.linalg.norm(v), 0)
    return energy_of(case.classify(theta[index(case.h)] * case.h))


def dice(case, percentile=90.0):
    contribution = case.train_h.mean(axis=0) * case.weight
    sparse = np.where(contribution > np.percentile(contribution, percentile), case.weight, 0)
    return energy_of(case.h @ sparse.T + case.bias)


def adascale_ratio(case, low=80.0, high=85.0, lmbda=10.0):
    import torch

    def responses(images):
        images = image_tensor(images)
        _, before, logits = torch_forward(case, images)
        logits.max(dim=1).values.sum().backward()
        size = images.grad.abs().flatten(1)
        order = size.argsort(dim=1, stable=True)[:, : int(size.shape[1] * 0.05)]
        trivial = torch.zeros_like(size).scatter_(1, order, 1.0).view_as(images)
        nudged = images + 0.5 * trivial * torch.sign(images.grad)
        moved = torch_forward(case, nudged)[1].detach().numpy()
        before, found = before.detach().numpy(), []
        for z, z_moved in zip(before, moved, strict=True):
            order = np.argsort(-z, kind="stable")
            k1, k2 = max(int(len(z) * 0.05), 1), max(int(len(z) * 0.01), 1)
            over_k2 = np.abs(z_moved - z)[order[:k2]].sum()
            found.append(np.maximum(z_moved, 0)[order[:k1]].sum() + lmbda * over_k2)
        return np.array(found)

    known, ratios = responses(case.train_images), []
    for z, response in zip(np.maximum(case.h, 0), responses(case.images), strict=True):
        percentile = low + (1 - np.mean(known <= response)) * (high - low)
        k = len(z) - int(np.round(len(z) * percentile / 100))
        ratios.append(z.sum() / np.sort(z)[-k:].sum())
    return np.array(ratios)[:, None]


def adascale_a(case):
    return energy_of(case.classify(case.h * np.exp(adascale_ratio(case))))


def adascale_l(case):
    return energy_of(case.logits * adascale_ratio(case) ** 2)


REFERENCES = {
    "msp": lambda case: softmax(case.logits, axis=1).max(axis=1),
    "maxlogit": lambda case: case.logits.max(axis=1),
    "energy": lambda case: energy_of(case.logits),
    "energy[temperature=3]": lambda case: 3 * energy_of(case.logits / 3),
    "kl": kl,
    "entropy": entropy,
    "gen": gen,
    "gen[gamma=0.3,top=2]": lambda case: gen(case, 0.3, 2),
    "gen[gamma=2]": lambda case: gen(case, 2),
    "kl_matching": kl_matching,
    "temp_scaling": temp_scaling,
    "openmax": openmax,
    "openmax[alpha=3,tail=25]": lambda case: openmax(case, 3, 25),
    "knn": knn,
    "knn[features=pooled]": knn_pooled,
    "nnguide": nnguide,
    "vim": vim,
    "vim[dim=5]": lambda case: vim(case, 5),
    "vim-nnguide": vim_nnguide,
    "residual": residual,
    "mahalanobis": mahalanobis,
    "mahalanobis-nnguide": mahalanobis_nnguide,
    "ssd": ssd,
    "rmds": rmds,
    "mahalanobis++": lambda case: mahalanobis(at_length_one(case)),
    "rmds++": lambda case: rmds(at_length_one(case)),
    "caref": caref,
    "cadref": cadref,
    "cadref[by=msp]": lambda case: cadref(case, lambda v: softmax(v, axis=1).max(axis=1)),
    "weiper": weiper,
    "weiper[repeats=3,delta=1,bins=20,lambda1=0.5,lambda2=2,s1=4,s2=1]": (
        lambda case: weiper(case, 3, 1, 20, 0.5, 2, 4, 1)
    ),
    "cop": cop,
    "cop[variance=0.5]": lambda case: cop(case, 0.5),
    "corp": corp,
    "pnml": pnml,
    "graduncertainty": graduncertainty,
    "mc-dropout": mc_dropout,
    "mcm": mcm,
    "neglabel": neglabel,
    "gmm": gmm,
    "gmm[covariance=full]": lambda case: gmm(case, full=True),
    "she": she,
    "fdbd": fdbd,
    "fdbd[by=norm]": lambda case: fdbd(case, False),
    "nci": nci,
    "nci[alpha=0.1]": lambda case: nci(case, 0.1),
    "gradnorm": gradnorm,
    "relation": relation,
    "gram": gram,
    "multi-mahalanobis": multi_mahalanobis,
    "aggregate": aggregate,
    "aggregate[of=knn,by=fisher]": lambda case: aggregate(case, knn, "fisher"),
    "nac": nac,
    "nac[alpha=30,bins=20,filled=5]": lambda case: nac(case, 30, 20, 5),
    "odin": odin,
    "i-odin": i_odin,
    "react": react,
    "react[percentile=80]": lambda case: react(case, 80),
    "vra": vra,
    "vra[low=30,high=70,below=zero]": lambda case: vra(case, 30, 70, "zero"),
    "ash-p": ash_p,
    "ash-b": ash_b,
    "ash-s": ash_s,
    "scale": scale,
    "lts": lts,
    "lts[percentile=60]": lambda case: lts(case, 60),
    "optfs": optfs,
    "dice": dice,
    "adascale-a": adascale_a,
    "adascale-l": adascale_l,
    "rankfeat": rankfeat,
}
