"""What one batch of a run sends and multiplies, message by message and rank by rank."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import nnls

from fsdcore.arrays import Float64s, Int64s
from fsdcore.estimate.activity import Activity, Structure
from fsdcore.messages.rows import Rows, encode_rows

# Up to so many messages are encoded to learn their sizes; of more, so many.
_ENCODED = 3000
# To learn how messages grow, so many are encoded again, with half of their samples, unless those are very few.
_COMPARED, _FEW = 300, 32
# What a message's body costs beyond its content: counts, and the frame of the compressor.
_FIXED_BYTES = 24.0


@dataclass(frozen=True, eq=False)
class Messages:
    """Messages of one batch, in order of layer, source and target.

    `layer`: from 2. `rows`: rows that the message may hold. `live`: samples that have any value in it; `nonzeros`: its
    values; `body`: its encoded bytes, 0 if it is empty.
    """

    layer: Int64s
    source: Int64s
    target: Int64s
    rows: Int64s
    live: Float64s
    nonzeros: Float64s
    body: Float64s


@dataclass(frozen=True, eq=False)
class Profile:
    """One batch of `samples`.

    `(layers, workers)`: `live`, the samples a rank carries through a layer; `local` and `remote`, its multiply-adds
    before and after the rows of others have come. `outputs`: encoded bytes by rank; `input_bytes`: of the whole input.
    `growth`: by which share of its bytes a message grows where its samples are doubled.
    """

    structure: Structure
    samples: float
    messages: Messages
    live: Float64s
    local: Float64s
    remote: Float64s
    outputs: Float64s
    input_bytes: float
    growth: float = 1.0

    def scaled(self, samples: float) -> Profile:
        """The same for a batch of another size: all but what each message costs at least grows with it."""
        factor = samples / max(self.samples, 1e-9)
        if factor == 1.0:
            return self
        m, grown = self.messages, 1 + self.growth * (factor - 1)
        body = np.where(m.body > _FIXED_BYTES, _FIXED_BYTES + (m.body - _FIXED_BYTES) * grown, m.body)
        messages = dataclasses.replace(m, live=m.live * factor, nonzeros=m.nonzeros * factor, body=np.ceil(body))
        return Profile(
            structure=self.structure,
            samples=samples,
            messages=messages,
            live=self.live * factor,
            local=self.local * factor,
            remote=self.remote * factor,
            outputs=self.outputs * factor,
            input_bytes=self.input_bytes * factor,
            growth=self.growth * factor / grown,
        )


def profile_of(structure: Structure, activity: Activity, seed: int = 0) -> Profile:
    """A batch made of the activity's own samples.

    The sizes of messages are those that the loop's own encoder gives; of very many messages some are encoded, and
    the others are sized after them, by nonzeros, samples and rows.
    """
    layers = structure.layers
    live = np.array([_live(layer.reads, activity.values[k]) for k, layer in enumerate(layers)])
    local = np.array([layer.local_weights for layer in layers]) * live
    remote = np.array([layer.remote_weights for layer in layers]) * live
    # The first product is one of sparse with sparse.
    local[0] *= min(1.0, 4 * activity.densities[0])
    last, inputs = activity.values[-1], activity.values[0]
    share = layers[-1].rows / max(1, layers[-1].rows.sum())
    messages = _messages(structure, activity, seed)
    return Profile(
        structure=structure,
        samples=activity.samples,
        messages=messages,
        live=live,
        local=local.astype(np.float64),
        remote=remote.astype(np.float64),
        outputs=share * (2.0 * last.nnz + last.shape[0] * last.shape[1] / 32),
        input_bytes=1.3 * inputs.nnz + 2.0 * inputs.shape[0],
        growth=_growth(structure, activity, messages),
    )


def _live(rows: sp.csr_array, x: sp.csr_array) -> Float64s:
    """For each set of rows, the samples that have any value in them."""
    pattern = sp.csr_array((np.ones(x.nnz, np.float32), x.indices, x.indptr), shape=x.shape)
    return np.asarray(np.count_nonzero(np.asarray(rows @ pattern.toarray()), axis=1), np.float64)


def _messages(structure: Structure, activity: Activity, seed: int) -> Messages:
    layers = list(enumerate(structure.layers))[1:]
    nonzeros = [layer.sends @ np.diff(activity.values[k].indptr).astype(np.float64) for k, layer in layers]
    live = [_live(layer.sends, activity.values[k]) for k, layer in layers]
    joined = Messages(
        layer=_joined([np.full(layer.source.size, k + 1) for k, layer in layers]),
        source=_joined([layer.source for _, layer in layers]),
        target=_joined([layer.target for _, layer in layers]),
        rows=_joined([layer.message_rows for _, layer in layers]),
        live=_joined(live).astype(np.float64),
        nonzeros=_joined(nonzeros).astype(np.float64),
        body=np.empty(0),
    )
    return dataclasses.replace(joined, body=_bodies(structure, activity, joined, seed))


def _joined(parts: list[Int64s] | list[Float64s]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *parts])


def _bodies(structure: Structure, activity: Activity, messages: Messages, seed: int) -> Float64s:
    count = messages.layer.size
    chosen = np.arange(count)
    if count > _ENCODED:
        chosen = np.sort(np.random.default_rng(seed).choice(count, _ENCODED, replace=False))
    body = np.zeros(count)
    body[chosen] = _encoded(structure, activity, messages, chosen)
    if chosen.size < count:
        known = np.zeros(count, np.bool_)
        known[chosen] = True
        body[~known] = _sized(messages, body, known)[~known]
    return body


def _growth(structure: Structure, activity: Activity, messages: Messages) -> float:
    """What the second half of the samples adds to some messages, beside what all of them take: less than a half, as
    what repeats compresses better."""
    there = np.flatnonzero(messages.body > _FIXED_BYTES)
    if not activity.compressible or activity.samples < 2 * _FEW or not there.size:
        return 1.0
    chosen = there[:: -(-there.size // _COMPARED)]
    whole, half = (_encoded(structure, activity, messages, chosen, every) for every in (1, 2))
    return float(np.clip(2 * (1 - half.sum() / whole.sum()), 0.0, 1.0))


def _encoded(structure: Structure, activity: Activity, messages: Messages, chosen: Int64s, every: int = 1) -> Float64s:
    """Bytes of the `chosen` messages, with every n-th of the samples."""
    starts = np.searchsorted(messages.layer, np.arange(len(structure.layers) + 2))
    columns = np.arange(0, activity.samples, every, dtype=np.int32)
    sizes, dense, layer = [], np.empty((0, 0), np.float32), 0
    for number in chosen.tolist():
        if messages.layer[number] != layer:
            layer = int(messages.layer[number])
            dense = activity.values[layer - 1].toarray()[:, ::every]
        sends = structure.layers[layer - 1].sends
        at = number - int(starts[layer])
        rows = dense[sends.indices[sends.indptr[at] : sends.indptr[at + 1]]]
        sizes.append(len(encode_rows(Rows(columns, rows), activity.samples).body.data))
    return np.array(sizes, np.float64)


def _sized(messages: Messages, body: Float64s, known: npt.NDArray[np.bool_]) -> Float64s:
    """Sizes after those that are known: by nonzeros, samples and bitmap, then right on average in each layer."""
    terms = np.stack([messages.nonzeros, messages.live, messages.rows * messages.live / 8], axis=1)
    there = messages.nonzeros > 0
    taken = known & there
    if not taken.any():
        return np.zeros(body.size)
    weight = 1 / np.maximum(body[taken], _FIXED_BYTES)
    shares, _ = nnls(terms[taken] * weight[:, None], np.maximum(body[taken] - _FIXED_BYTES, 0) * weight)
    sized = np.where(there, _FIXED_BYTES + terms @ shares, 0.0)
    layers = int(messages.layer.max()) + 1
    counted, guessed = (np.bincount(messages.layer[taken], each[taken], layers) for each in (body, sized))
    right = np.where((counted > 0) & (guessed > 0), counted / np.maximum(guessed, 1e-9), 1.0)
    return np.asarray(np.ceil(sized * right[messages.layer]), np.float64)


# Of its activations, the batch at work holds those before a layer, after it, and some on their way; others wait.
_AT_WORK, _WAITING = 2.3, 1.7
# What one batch needs on its way through a layer is worked off in pieces: of its activations up to a size, a share,
_PIECE_BYTES, _PIECES = 8.4e6, 0.53
# and, up to half of that, a larger one as far as its rows differ, which shows in the bytes they travel as.
_DIFFERENT = 4.47
_LEAST_PACKED = 2.5
# Of the bytes that one layer sends and receives: as a body, as frames, and as what the channel makes of them.
_MESSAGES = 1.17
# What packing the outputs of one batch takes, of its last activations, as far as their rows differ: of the bytes that
# they are packed to, where those are few.
_PACKING = 5.5
_LEAST_OUTPUT = 25.0
# A strip of the inputs on its way, up to this size, of which a worker holds it in several forms.
_STRIP_BYTES, _INPUT_FORMS, _UNPACKED = 8.4e6, 2.2, 4.0
# A piece of the stored plan that is read while its layers come: a share of the weights, up to this size.
_PLAN_PIECE, _STORED = 16.8e6, 0.35
# Buffers that do not depend on the run.
_BUFFERS = 2.9e6


def memory_bytes(profile: Profile, runtime_bytes: float, under_way: int = 1) -> Float64s:
    """Bytes by rank, with `under_way` batches like the profile's at once: runtime, weights, and what comes and goes.

    An upper estimate: what is freed is counted as used where the allocator may keep it.
    """
    weights = profile.structure.memory_bytes.astype(np.float64)
    rows = np.array([layer.rows for layer in profile.structure.layers])
    each = 4.0 * (rows * profile.live)
    held = each.max(axis=0)
    packing = _PACKING * np.minimum(each[-1], _LEAST_OUTPUT * profile.outputs)
    reading = _INPUT_FORMS * min(_STRIP_BYTES, _UNPACKED * profile.input_bytes)
    between = under_way * held + np.maximum(packing, reading)
    fullest = np.maximum((_AT_WORK + _WAITING * (under_way - 1)) * held + _passing(profile, held), between)
    plan = np.minimum(_PLAN_PIECE, _STORED * weights)
    return np.asarray(runtime_bytes + weights + plan + fullest + _BUFFERS, np.float64)


def _passing(profile: Profile, held: Float64s) -> Float64s:
    """By rank, what one batch needs on its way through a layer, beside the activations."""
    travelling = _travelling(profile)
    piece, half = np.minimum(held, _PIECE_BYTES), np.minimum(held, _PIECE_BYTES / 2)
    return _PIECES * piece + _DIFFERENT * np.minimum(half, _LEAST_PACKED * travelling) + _MESSAGES * travelling


def _travelling(profile: Profile) -> Float64s:
    """By rank, the most bytes of messages that one layer sends, and the most that one receives."""
    m = profile.messages
    sent, received = np.zeros(profile.live.shape), np.zeros(profile.live.shape)
    np.add.at(sent, (m.layer - 1, m.source), m.body)
    np.add.at(received, (m.layer - 1, m.target), m.body)
    return np.asarray(sent.max(axis=0) + received.max(axis=0), np.float64)
