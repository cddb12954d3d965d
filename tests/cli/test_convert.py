"""convert: weights in another file format."""

import pytest

from minicnn.training import checkpoint

pytest.importorskip("h5py")


def test_there_and_back_bit_for_bit(command, digits_run, tmp_path):
    code, out, err = command("convert", digits_run.weights, tmp_path / "w.h5")
    assert (code, err) == (0, "") and out.startswith(f"wrote {tmp_path}/w.h5: 10 arrays, ")
    assert command("convert", tmp_path / "w.h5", tmp_path / "new" / "w.safetensors")[0] == 0
    first, second = checkpoint.load(digits_run.weights), checkpoint.load(tmp_path / "new" / "w.safetensors")
    assert first.metadata == second.metadata and first.arrays.keys() == second.arrays.keys()
    for name, array in first.arrays.items():
        assert array.dtype == second.arrays[name].dtype and array.tobytes() == second.arrays[name].tobytes()


def test_the_commands_take_hdf5(command, digits_run, tmp_path):
    command("convert", digits_run.weights, tmp_path / "w.h5")
    words = ("evaluate", "--backend", "numpy", "--json", "--weights")
    assert command(*words, tmp_path / "w.h5") == command(*words, digits_run.weights)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "w.h5").read_bytes()[:-100])
    code, out, err = command(*words, tmp_path / "cut.h5")
    assert (code, out) == (1, "") and err.startswith(f"error: cannot load {tmp_path}/cut.h5: it is damaged or cut off")
    assert err.count("\n") == 1


def test_another_suffix_and_missing_weights(command, digits_run, tmp_path):
    code, _, err = command("convert", digits_run.weights, tmp_path / "w.pt")
    assert code == 2 and err == f"error: expected a file .safetensors, .h5, .hdf5, received {tmp_path}/w.pt\n"
    code, _, err = command("convert", tmp_path / "none.h5", tmp_path / "w.h5")
    assert code == 1 and "no file and no shipped weights" in err and list(tmp_path.iterdir()) == []
