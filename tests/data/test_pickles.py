"""The reader of CIFAR-10's pickles: the published layouts, and that nothing in a file runs or grows."""

import pickle
import pickletools
import random
import struct
import time
import tracemalloc

import numpy as np
import pytest

from minicnn.data import pickles

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 6), dtype=np.uint8)  # 360 bytes: a BINSTRING
RAW = PIXELS.tobytes()
LABELS = [i % 10 for i in range(60)]
NAMES = [f"a_{i}.png" for i in range(60)]


def text(words, opcode=b"U"):
    return opcode + bytes([len(words)]) + words.encode()


class Puts:
    """The memo's opcodes, numbered from ``first`` as a pickler numbers them."""

    def __init__(self, first):
        self.number = first

    def __call__(self):
        self.number += 1
        index = self.number - 1
        return b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index)


def python2(first=1, flags=b"K\x00K\x01", shape=b"K\x3cK\x06\x86", order=b"\x89", pixels=RAW, puts=True):
    """A batch as Python 2 wrote it in protocol 2; ``first`` is 1 for cPickle and 0 for pickle."""
    put = Puts(first) if puts else lambda: b""
    content = [b"\x80\x02}", put(), b"(", text("batch_label"), put(), text("training batch 1 of 5"), put()]
    content += [text("labels"), put(), b"]", put()]
    content += [b"(", b"".join(b"K" + bytes([label]) for label in LABELS), b"e"]
    content += [text("data"), put(), b"cnumpy.core.multiarray\n_reconstruct\n", put(), b"cnumpy\nndarray\n", put()]
    content += [b"K\0\x85", put(), text("b"), put(), b"\x87", put(), b"R", put(), b"(K\x01", shape, put()]
    content += [b"cnumpy\ndtype\n", put(), text("u1"), put(), flags, b"\x87", put(), b"R", put()]
    content += [b"(K\x03", text("|"), put(), b"NNN", b"J\xff\xff\xff\xff" * 2, b"K\0t", put(), b"b", order]
    content += [b"T", struct.pack("<I", len(pixels)), pixels, put(), b"t", put(), b"b"]
    content += [text("filenames"), put(), b"]", put(), b"(", *(text(name) + put() for name in NAMES), b"eu."]
    return b"".join(content)


def python3(protocol):
    return pickle.dumps({"data": PIXELS, "labels": LABELS, "filenames": NAMES}, protocol)


LAYOUTS = {
    "cPickle": python2(),
    "pickle of Python 2": python2(0, flags=b"\x89\x88"),
    "without memo": python2(puts=False),
    "Python 3, protocol 3": python3(3),
    "Python 3, protocol 4": python3(4),
    "Python 3, NumPy 1": python3(3).replace(b"cnumpy._core.", b"cnumpy.core."),
}


def read(content):
    batch = pickles.load(content)
    return pickles.uint8_array(batch["data"]), batch["labels"], batch["filenames"]


@pytest.mark.parametrize("content", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts(content):
    pixels, labels, names = read(content)
    assert pixels.dtype == np.uint8 and not pixels.flags.writeable
    np.testing.assert_array_equal(pixels, PIXELS)
    assert labels == LABELS and names == NAMES
    theirs = pickle.loads(content, encoding="latin1")
    np.testing.assert_array_equal(theirs["data"], PIXELS)


def test_order_of_the_bytes():
    by_columns = python2(order=b"\x88", pixels=PIXELS.T.tobytes())
    np.testing.assert_array_equal(read(by_columns)[0], PIXELS)


def array(before=b"", shape=b"K\x02K\x03\x86", dtype=b"U\x02u1", state=b"U\x01|NNN", content=b"U\x06abcdef"):
    start = (
        b"\x80\x02"
        + before
        + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01"
        + shape
    )
    return (
        start + b"cnumpy\ndtype\n" + dtype + b"K\0K\x01\x87R(K\x03" + state + b"JxxxxJxxxxK\0tb\x89" + content + b"tb."
    )


WRONG = {
    "three axes": array(shape=b"K\x01K\x02K\x03\x87"),
    "one axis": array(shape=b"K\x06\x85"),
    "a negative axis": array(shape=b"J\xfe\xff\xff\xffJ\xfd\xff\xff\xff\x86"),
    "axes that are true": array(shape=b"K\x06\x88\x86"),
    "axes of which the product is 2^64": array(shape=b"J\0\0\0\x40J\0\0\0\x40\x86"),
    "a shape that is a list": array(shape=b"](K\x02K\x03e"),
    "objects": array(dtype=b"U\x01O"),
    "bits": array(dtype=b"U\x02b1"),
    "a type that is a type": array(dtype=b"cnumpy\nndarray\n"),
    "other byte order": array(state=b"U\x01>NNN"),
    "fields": array(state=b"U\x01|NU\x01a}"),
    "too few bytes": array(content=b"U\x05abcde"),
    "too many bytes": array(content=b"U\x07abcdefg"),
    "bytes that are a list": array(content=b"](K\x01e"),
    "no bytes": array(content=b"N"),
    "text beyond bytes": array(content=b"X\x07\0\0\0abcde\xc4\x80"),
}


def test_the_array_that_is_made_wrong_below_is_right_otherwise():
    assert pickles.uint8_array(pickles.load(array())).tolist() == [[97, 98, 99], [100, 101, 102]]


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG.keys())
def test_arguments_of_an_array_are_checked(content):
    with pytest.raises(ValueError):
        pickles.uint8_array(pickles.load(content))


def test_what_is_no_array_is_refused():
    for content in (b"N.", b"}.", b"cnumpy\ndtype\n.", b"cnumpy\ndtype\n)R.", b"cnumpy\nndarray\n(K\x05tR."):
        with pytest.raises(ValueError, match="expected"):
            pickles.uint8_array(pickles.load(content))


CRASH = (
    b"\x80\x05cnumpy\nndarray\n((K\x01tcnumpy\ndtype\n(X\x01\0\0\0OtR\x96\x08\0\0\0\0\0\0\0AAAAAAAAtRK\0Ns.",
    b"\x80\x02cnumpy\nndarray\n((K\x01tcnumpy\ndtype\n(X\x01\0\0\0OtRC\x08AAAAAAAAtRK\0Ns.",
    b"\x80\x02cnumpy\nndarray\n((K\x01tcnumpy\ndtype\n(X\x01\0\0\0OtRC\x08AAAAAAAAtR.",
)


@pytest.mark.parametrize("content", CRASH)
def test_no_array_of_objects_is_made_of_bytes(content):
    with pytest.raises(ValueError):
        pickles.uint8_array(pickles.load(content))


def test_no_command_runs_by_any_way_of_calling(tmp_path):
    sentinel = tmp_path / "sentinel"
    command = text(f"touch {sentinel}", b"\x8c")
    named = [b"cos\nsystem\n", b"cposix\nsystem\n", text("os", b"\x8c") + text("system", b"\x8c") + b"\x93"]
    calls = [command + b"\x85R.", command + b"\x85\x81.", b"(" + command + b"o.", command + b"\x85}\x92."]
    contents = [name + call for name in named for call in calls]
    contents += [b"(" + command + b"ios\nsystem\n.", b"(cos\nsystem\n" + command + b"o.", b"\x82\x01.", b"Pos.", b"Q."]
    contents += [b"cbuiltins\neval\n" + command + b"\x85R.", b"cnumpy\nload\n" + command + b"\x85R."]
    # on a record, an array's type or a list: the state is kept, never set as attributes
    contents += [b"cnumpy\ndtype\n)R}U\x09__class__" + named[0] + b"sb.", b"]}U\x06append" + named[0] + b"sb."]
    for content in contents:
        with pytest.raises(ValueError):
            pickles.load(content)
    assert not sentinel.exists()


def test_a_state_stays_a_value():
    record = pickles.load(b"cnumpy\ndtype\n)R}U\x08functionU\x01xsb.")
    assert record.function == pickles.Name("numpy", "dtype") and record.state == {"function": "x"}


ARGUMENTS = [
    b"",
    b"\0",
    b"\1",
    b"\xff",
    b"\1\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff" * 8,
    b"\x08" + b"\0" * 7,
    b"1\n",
    b"os\nsystem\n",
]


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: opcode.name)
def test_every_opcode_gives_a_value_or_a_value_error(opcode):
    """Alone, on every kind of value, and inside a batch."""
    code, known = opcode.code.encode("latin1"), opcode.code.encode("latin1") in pickles._OPCODES
    values = [b"", b"N", b"K\1", b"]", b"}", b")", b"U\1a", b"(", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n)R"]
    batch = python2()
    starts = [a + b for a in values for b in values] + [batch[:position] for position in range(0, 120)]
    for start in starts:
        for argument in ARGUMENTS:
            for end in (b".", batch[len(start) :]):
                try:
                    pickles.load(start + code + argument + end)
                except ValueError as error:
                    assert "\n" not in str(error) and len(str(error)) < 500
    if not known and opcode.name != "STOP":
        with pytest.raises(ValueError, match="is refused"):
            pickles.load(code + b"\0" * 9 + b".")


BOMBS = {
    "a memo at 2^32": b"Nr\xff\xff\xff\xff.",
    "no such memo": b"j\xff\xff\xff\x7f.",
    "a length of 2^32 bytes": b"B\xff\xff\xff\xffabc.",
    "a length of 2^32 characters": b"X\xff\xff\xff\xffabc.",
    "a length of 2^31, signed in Python 2": b"T\0\0\0\x80abc.",
    "a frame of 2^64 bytes": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "a number of 2^31 bytes": b"\x8b\xff\xff\xff\x7fN.",
    "lists side by side": b"]" * 10**6 + b".",
    "open marks": b"(" * 10**6 + b".",
    "tuples in tuples": b")" + b"\x85" * 10**6 + b".",
    "lists in lists": b"]" * 10**5 + b"a" * (10**5 - 1) + b".",
    "records in records": b")" + b"cnumpy\ndtype\n)Rb" * 10**5 + b".",
    "duplicates": b"N" + b"2" * 10**6 + b".",
    "twice itself 90,000 times": b")" + b"q\0h\0\x86" * 60_000 + b".",
    "a list in itself": b"]q\0h\0a" + b"h\0a" * 10**4 + b".",
    "a name without an end": b"c" + b"a" * 10**6 + b".",
    "a name of a megabyte": text("numpy", b"\x8c") + b"X\x40\x42\x0f\0" + b"a" * 10**6 + b"\x93.",
    "keys that are long to hash": b"}q\1)" + b"q\0h\0\x86" * 1000 + b"h\0N" + b"s.",
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS.keys())
def test_time_and_memory_are_bounded(content):
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(ValueError) as error:
            pickles.uint8_array(pickles.load(content))
        assert time.process_time() - start < 10 and tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_ten_thousand_mutations_give_arrays_or_a_value_error():
    rng = random.Random(0)
    sources = list(LAYOUTS.values())
    codes = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
    pieces = [*codes, b"\xff" * 4, b"\0" * 4, b"cos\nsystem\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b")R", b"h\1"]
    read_anyway = 0
    for _ in range(10_000):
        content = bytearray(rng.choice(sources))
        for _ in range(rng.choice((1, 1, 2, 5))):
            position, piece = rng.randrange(len(content)), rng.choice([rng.choice(pieces), rng.randbytes(1)])
            other = rng.randrange(len(content))
            low, high = sorted((position, min(other, position + 40)))
            how = rng.randrange(5)
            if how == 0:
                content[position : position + len(piece)] = piece
            elif how == 1:
                content[position:position] = piece
            elif how == 2:
                del content[low:high]
            elif how == 3:
                content[other:other] = content[low:high]
            else:
                del content[max(position, 1) :]
        try:
            batch = pickles.load(bytes(content))
            pixels = pickles.uint8_array(batch["data"] if isinstance(batch, dict) and "data" in batch else batch)
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
            continue
        read_anyway += 1
        assert pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.nbytes <= len(content)
    assert 100 < read_anyway < 9_900  # some change only pixels or names, most do not
