"""Suites on miniatures of what the papers' authors have on their disks."""

import json

import numpy as np
import pytest
from colours import Colours, logits
from layouts import NNGUIDE, OPENOOD, SFP, picture, write_folders, write_images, write_openood
from scipy.special import logsumexp

import jaxood
from jaxood.cli import main
from jaxood.data.suite import folders_suite
from jaxood.errors import UsageError

CLASSES = {"imagenet": 1000, "imagenet200": 200, "cifar10": 10, "cifar100": 100}
ID = {name: f"test_{name}" for name in CLASSES}
FAR = {
    "imagenet": {name: f"test_{name}" for name in ("inaturalist", "textures", "openimage_o")},
    "cifar": {name: f"test_{name}" for name in ("mnist", "svhn", "texture", "places365")},
}
GROUPS = {  # lists by group and set, as OpenOOD's evaluator has them
    "imagenet": {
        "near": {"ssb_hard": "test_ssb_hard", "ninco": "test_ninco"},
        "far": FAR["imagenet"],
    },
    "imagenet200": {
        "near": {"ssb_hard": "test_ssb_hard", "ninco": "test_ninco"},
        "far": FAR["imagenet"],
    },
    "cifar10": {"near": {"cifar100": "test_cifar100", "tin": "test_tin"}, "far": FAR["cifar"]},
    "cifar100": {"near": {"cifar10": "test_cifar10", "tin": "test_tin"}, "far": FAR["cifar"]},
}
SHIFTED = {
    "imagenet": {f"imagenet_{kind}": f"test_imagenet_{kind}" for kind in ("v2", "c", "r", "es")},
    "imagenet200": {f"imagenet_{kind}": f"test_imagenet200_{kind}" for kind in ("v2", "c", "r")},
    "cifar10": {"cifar10c": "test_cifar10c"},
    "cifar100": {},
}


def paths(benchmark, name):
    return [line.split(" ")[0] for line in OPENOOD[benchmark][name]]


def energies(files, classes):
    means = [picture(file).mean(axis=(0, 1), keepdims=True) for file in files]
    return logsumexp(logits(np.stack(means), classes), axis=1)


def auroc(known, foreign):
    """Pair by pair."""
    pairs = [(a > b) + 0.5 * (a == b) for a in known for b in foreign]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("benchmark", OPENOOD)
def test_openood_as_it_lies_on_a_disk(benchmark, tmp_path):
    """The right files of the right lists, in groups; and ImageNet-C is not cropped."""
    ending = "\r\n" if benchmark == "cifar10" else "\n"
    root, classes = write_openood(tmp_path, benchmark, ending), CLASSES[benchmark]
    suite = jaxood.suite(f"openood-{benchmark}", root)
    groups, shifted = GROUPS[benchmark], SHIFTED[benchmark]
    assert suite.groups == {group: tuple(sets) for group, sets in groups.items()}
    assert len(suite.train) == 8 and suite.missing == {}
    assert suite.id_validation.labels.tolist() == [
        int(line.split()[1]) for line in OPENOOD[benchmark][f"val_{benchmark}"]
    ]
    assert tuple(suite.ood_validation.ids) == tuple(
        paths(benchmark, "val_tin" if "cifar" in benchmark else "val_openimage_o")
    )
    found = jaxood.evaluate(
        Colours(classes), suite, "energy", full_spectrum=bool(shifted), batch_size=16
    )
    (result,) = found.results
    lists = {name: lst for sets in groups.values() for name, lst in sets.items()}
    for name, scores, listed in (
        [("id", result.scores.id, ID[benchmark])]
        + [(name, result.scores.ood[name], lists[name]) for name in lists]
        + [(name, result.scores.shifted[name], shifted[name]) for name in shifted]
    ):
        expected = energies(paths(benchmark, listed), classes)
        np.testing.assert_allclose(scores, expected, rtol=1e-5, err_msg=name)
    assert found.skipped == {name: () for name in found.skipped}
    every = np.concatenate([result.scores.id, *result.scores.shifted.values()])
    assert len(every) == len(result.scores.id) + sum(
        len(paths(benchmark, listed)) for listed in shifted.values()
    )
    for name, foreign in result.scores.ood.items():
        assert result.metrics[name].auroc == pytest.approx(auroc(result.scores.id, foreign))
        if shifted:
            assert result.full_spectrum[name].auroc == pytest.approx(auroc(every, foreign))
    assert shifted or not result.full_spectrum
    for metric, known in (("auroc", result.scores.id), ("full-spectrum auroc", every)):
        if shifted or known is not every:
            (table,) = found.report.tables([metric], "groups")
            means = [
                100 * np.mean([auroc(known, result.scores.ood[name]) for name in sets])
                for sets in groups.values()
            ]
            assert [column.title for column in table.columns] == ["near", "far"]
            assert [cell.mean for cell in table.lines[0].cells] == pytest.approx(means)
    labels = np.array([int(line.split()[1]) for line in OPENOOD[benchmark][ID[benchmark]]])
    top = logits(np.stack([picture(p)[:1, :1] for p in paths(benchmark, ID[benchmark])]), classes)
    assert found.accuracy == pytest.approx(np.mean(top.argmax(axis=1) == labels))


@pytest.mark.parametrize(
    ("benchmark", "renamed", "listed"),
    [
        ("imagenet200", "images_largescale/openimage_o", "openimage_o"),
        ("cifar100", "images_classic/places365", "places365"),
    ],
)
def test_two_spellings_of_one_folder(benchmark, renamed, listed, tmp_path):
    """openimage_o and openimageo, places365 and place365: in use for folders and for lists."""
    root, name = write_openood(tmp_path, benchmark), f"openood-{benchmark}"
    other = {"openimage_o": "openimageo", "places365": "place365"}[listed]
    folder = root / "benchmark_imglist" / benchmark
    (root / renamed).rename(root / renamed.replace(listed, other))
    ood = jaxood.suite(name, root).ood[listed]
    assert len(ood) == len(paths(benchmark, f"test_{listed}"))
    assert all((root / path).exists() for path in ood.paths())
    (folder / f"test_{listed}.txt").rename(folder / f"test_{other}.txt")
    again = jaxood.suite(name, root).ood[listed]
    assert tuple(again.ids) == tuple(ood.ids)
    text = (folder / f"test_{other}.txt").read_text()
    (folder / f"test_{other}.txt").write_text(text.replace(listed, other))
    (root / renamed.replace(listed, other)).rename(root / renamed)
    assert all(id.startswith(f"{listed}/") for id in jaxood.suite(name, root).ood[listed].ids)


def test_nnguide_as_it_lies_on_a_disk(tmp_path):
    suite = jaxood.suite("imagenet-nnguide", write_folders(tmp_path, NNGUIDE))
    assert suite.groups == {}
    assert suite.train.labels.tolist() == [0] * 3 + [1] * 3 + [999] * 3
    assert suite.id_test.labels.tolist() == [0, 1, 999] and suite.id_test.labels_are_classes
    assert suite.shifted["imagenet-v2-a"].labels.tolist() == [0, 1, 10, 999]
    found = jaxood.evaluate(Colours(1000), suite, ["energy", "knn[k=1]"], full_spectrum=True)
    folders = {
        "inaturalist": "inaturalist/iNaturalist/images",
        "sun": "sun/SUN/images",
        "places": "places/Places/images",
        "textures": "textures/dtd/images",
        "openimage-o": "openimage-o/images",
    }
    energy = found.results[0].scores
    assert list(energy.ood) == list(folders)
    for name, folder in folders.items():
        np.testing.assert_allclose(energy.ood[name], energies(NNGUIDE[folder], 1000), rtol=1e-5)
    val = NNGUIDE["imagenet1k/imagenet/val"]
    np.testing.assert_allclose(energy.id, energies(val, 1000), rtol=1e-5)
    assert len(found.bank) == 9 and len(energy.shifted["imagenet-v2-b"]) == 2
    top = logits(np.stack([picture(path)[:1, :1] for path in val]), 1000).argmax(axis=1)
    assert found.accuracy == pytest.approx(np.mean(top == [0, 1, 999]))
    lying = NNGUIDE["imagenet1k-v2/imagenetv2-threshold0.7-format-val"]
    top = logits(np.stack([picture(path)[:1, :1] for path in lying]), 1000).argmax(axis=1)
    assert found.accuracies["imagenet-v2-a"] == pytest.approx(np.mean(top == [0, 1, 10, 999]))
    assert "accuracy on imagenet-v2-a: " in str(found)
    assert any(row.set == "imagenet-v2-b" and row.metric == "accuracy" for row in found.report.rows)


@pytest.mark.parametrize("below", ["", "datasets/images"])
def test_sfp_as_it_lies_on_a_disk(below, tmp_path):
    root = write_folders(tmp_path, SFP) / below
    suite = jaxood.suite("imagenet-sfp", root)
    assert suite.train is None and suite.id_test.labels.tolist() == [0, 1, 999]
    (result,) = jaxood.evaluate(Colours(1000), suite, "energy").results
    for name, scores in result.scores.ood.items():
        expected = energies(SFP[f"datasets/images/{name}"], 1000)
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert list(result.metrics) == ["SUN", "Places", "dtd", "iNaturalist"]
    with pytest.raises(UsageError, match="train: got none, wanted training images, on which meth"):
        jaxood.evaluate(Colours(1000), suite, "knn")


def test_what_is_not_there_is_said_when_it_is_asked_for(tmp_path):
    """A run that does without the training images, or shifted sets, does without them."""
    root = write_openood(tmp_path, "imagenet")
    images = root / "images_largescale"
    for name in ("imagenet_1k/train", "imagenet_r", "ssb_hard"):
        (images / name).rename(root / name.replace("/", "-"))
    with pytest.raises(
        UsageError,
        match=r"root: got ood.ssb_hard: .*n11622368_1060.JPEG is not th"
        r"ere, wanted its 49000 images. They come from OpenOOD: ssb_hard.zip",
    ):
        jaxood.suite("openood-imagenet", root)
    (root / "ssb_hard").rename(images / "ssb_hard")
    suite = jaxood.suite("openood-imagenet", root)
    assert set(suite.missing) == {"train", "shifted.imagenet_r"} and suite.train is None
    for methods, full, message in (
        (["msp", "knn"], False, "got train: .*is not there, wanted images that method knn is fitt"),
        ("msp", True, "got shifted.imagenet_r: .*misc_0.jpg is not there, wanted all covariate"),
    ):
        with pytest.raises(UsageError, match=f"suite: {message}.*jaxood suites check"):
            jaxood.evaluate(None, suite, methods, full_spectrum=full)
    found = jaxood.evaluate(Colours(1000), suite, "temp_scaling")
    assert found.settings["fitted_on"] == {"temp_scaling": ["validation"]}
    with pytest.raises(UsageError, match="full_spectrum: got suite imagenet-sfp, which has no cov"):
        sfp = jaxood.suite("imagenet-sfp", write_folders(tmp_path / "sfp", SFP))
        jaxood.evaluate(None, sfp, "msp", full_spectrum=True)
    with pytest.raises(UsageError, match="model: got .*Colours with 10 classes, wanted 1000"):
        jaxood.evaluate(Colours(10), suite, "msp")


def test_validation_images_are_fitted_on_and_never_scored(tmp_path):
    root, files = write_openood(tmp_path, "cifar10"), paths("cifar10", "val_cifar10")
    rows = logits(np.stack([picture(file) for file in files]), 10)
    labels = [*rows[:-1].argmax(axis=1), rows[-1].argsort()[-2]]  # one wrong: no end of the range
    text = "".join(f"{file} {label}\n" for file, label in zip(files, labels, strict=True))
    (root / "benchmark_imglist/cifar10/val_cifar10.txt").write_text(text)
    suite = jaxood.suite("openood-cifar10", root)
    found = jaxood.evaluate(Colours(10), suite, ["msp", "temp_scaling", "knn[k=1]"])
    assert found.settings["fitted_on"] == {
        "temp_scaling": ["validation"],
        "knn[k=1]": ["train"],
    }
    assert list(found.sets) == ["train", "validation", "cifar10", *suite.ood]

    def loss(temperature):
        scaled = rows / temperature
        return np.mean(logsumexp(scaled, axis=1) - scaled[range(len(files)), labels])

    grid = np.geomspace(0.05, 20, 20001)
    temperature = grid[np.argmin([loss(value) for value in grid])]
    assert 0.06 < temperature < 19
    pictures = np.stack([picture(file) for file in paths("cifar10", "test_cifar10")])
    test = logits(pictures, 10) / temperature
    top = test.max(axis=1)
    rest = np.where(test == top[:, None], -np.inf, test)
    (scaled,) = (one for one in found.results if one.method == "temp_scaling")
    np.testing.assert_allclose(scaled.scores.id, top - logsumexp(rest, axis=1), atol=1e-3)
    for one in found.results:
        assert list(one.metrics) == list(one.scores.ood) == list(suite.ood)
    unasked = jaxood.evaluate(Colours(10), suite, "msp")
    assert unasked.validation is None and list(unasked.sets) == ["cifar10", *suite.ood]


def test_without_validation_images_the_training_images_serve(tmp_path):
    root = write_folders(tmp_path, NNGUIDE)
    found = jaxood.evaluate(Colours(1000), jaxood.suite("imagenet-nnguide", root), "temp_scaling")
    assert found.settings["fitted_on"] == {"temp_scaling": ["train"]}
    assert found.validation is None and len(found.train.features) == 9


def test_the_command_lists_shows_and_checks(tmp_path, capsys):
    def told(*arguments):
        code = main("suites", [str(argument) for argument in arguments])
        output = capsys.readouterr()
        return code, output.out.splitlines(), output.err.strip()

    code, lines, _ = told()
    assert code == 0 and len(lines) == 11
    assert lines[0].split()[0] == "digits" and "openood-imagenet200 " in lines[9]
    code, lines, _ = told("openood-cifar100")
    assert code == 0 and lines[1].split() == ["set", "group", "expected", "where", "from"]
    assert lines[7].split() == [
        *("ood.tin", "near", "6,526", "benchmark_imglist/cifar100/test_tin.txt"),
        *("OpenOOD:", "tin.zip,", "benchmark_imglist.zip"),
    ]
    root = write_openood(tmp_path, "cifar100")
    (root / "images_classic/tin").rename(root / "tin")
    code, lines, _ = told("check", "openood-cifar100", "--root", root)
    assert code == 2 and lines[1].split() == ["set", "group", "found", "expected", "from"]
    assert lines[7].split()[:4] == ["ood.tin", "near", "0", "6,526"]
    expected = (
        "ood.tin: 2 of its list are not there, such as {}/images_classic/tin/val/images/val_10"
    )
    assert f"{expected.format(root)}.JPEG" in lines and lines[-1] == "10 of 10 sets not whole"
    assert "train: its list has 8 lines: one of another version" in lines
    assert told("check", "digits")[0] == 0
    for arguments, message in (
        (["check", "openood-cifar100"], "--root: got none, wanted the folder in which the images"),
        (["digits", "--root", root], "wanted it with `check NAME` only"),
        (["check"], "name: got check, wanted nothing, NAME, or check NAME"),
        (["openood"], "suite: got 'openood', wanted one of"),
    ):
        code, lines, error = told(*arguments)
        assert (code, lines) == (2, []) and message in error and "\n" not in error


def test_the_command_evaluates_a_suite(tmp_path, capsys):
    root = write_openood(tmp_path, "imagenet")
    asked = ["--model", "colours:imagenet", "--method", "temp_scaling", "msp", "--full-spectrum"]
    asked += ["--suite", "openood-imagenet", "--data-root", str(root), "--output"]
    assert main("evaluate", [*asked, str(tmp_path / "out")]) == 0
    scores = np.load(tmp_path / "out" / "scores.npz")
    assert scores["ids/imagenet_c"].tolist() == paths("imagenet", "test_imagenet_c")
    assert len(scores["scores/msp/imagenet_r"]) == 3
    names = ("ssb_hard", "ninco", *FAR["imagenet"], "imagenet", *SHIFTED["imagenet"])
    scored = {key for key in scores if key.startswith("scores/msp/")}
    assert scored == {f"scores/msp/{name}" for name in names} and "ids/validation" in scores
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert told["data"]["validation"]["images"] == 5
    assert told["arguments"]["fitted_on"] == {"temp_scaling": ["validation"]}
    assert told["arguments"]["full_spectrum"] is True
    capsys.readouterr()
    lists, images = root / "benchmark_imglist/imagenet", root / "images_largescale"
    asked = ["--model", "colours:imagenet", "--method", "msp", "--output", str(tmp_path / "two")]
    asked += ["--id-dir", f"{lists}/test_imagenet.txt", "--ood-dir", f"o={lists}/test_ninco.txt"]
    assert main("evaluate", [*asked, "--data-root", str(images)]) == 0
    again = np.load(tmp_path / "two" / "scores.npz")
    np.testing.assert_allclose(again["scores/msp/o"], scores["scores/msp/ninco"], rtol=1e-6)
    capsys.readouterr()
    for extra, message in (
        (["--suite", "imagenet-sfp"], "--data-root: got none, wanted the folder in which"),
        (["--suite", "digits", "--data-root", str(root)], "--data-root: got "),
        (["--suite", str(root / "no.toml")], "--suite: got "),
        (["--suite", "digits", "--full-spectrum"], "--full-spectrum: got suite digits, which has"),
    ):
        asked = ["--model", "colours:imagenet", "--method", "msp", *extra]
        assert main("evaluate", [*asked, "--output", str(tmp_path / "x")]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert message in line
    assert not (tmp_path / "x").exists()


def test_the_users_own_class_names_number_folders_and_lists(tmp_path):
    """--classes has another order than the folders; the same labels come from a table of names."""
    names = ["zebra", *(f"class {i}" for i in range(1, 8)), "bee", "ant"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    write_images(tmp_path, ["id/ant/a.png", "id/bee/b.png", "id/zebra/c.png", "far/d.png"])
    rows = ("path,label", "id/ant/a.png,ant", "id/bee/b.png,bee", "id/zebra/c.png,zebra")
    (tmp_path / "id.csv").write_text("\n".join(rows))
    model = jaxood.load_model(Colours(10), classes=tmp_path / "names.txt")
    for source in ("id", "id.csv"):
        suite = folders_suite(tmp_path / source, tmp_path / source, {"far": tmp_path / "far"})
        found = jaxood.evaluate(model, suite, ["msp", "temp_scaling"])
        for images in (found.id_test.images, found.train.images):
            assert images.labels.tolist() == [9, 8, 0]
        assert found.model.class_names == tuple(names) and found.accuracy is not None


def test_a_detector_is_fitted_on_openoods_lists(tmp_path, capsys):
    root = write_openood(tmp_path, "imagenet")
    lists, file = root / "benchmark_imglist/imagenet", tmp_path / "detector.safetensors"
    asked = ["--model", "colours:imagenet", "--method", "knn[k=1]", "--output", str(file)]
    asked += ["--train-dir", f"{lists}/train_imagenet.txt", "--tpr", "0.5"]
    asked += ["--id-dir", f"{lists}/val_imagenet.txt", "--data-root"]
    assert main("fit", [*asked, str(root / "images_largescale")]) == 0
    assert "fitted on 8 training images" in capsys.readouterr().out
    assert main("fit", [*asked, str(root / "nowhere")]) == 2
    assert "--data-root: got " in capsys.readouterr().err
    folders = [part.replace(f"{lists}/", f"{root}/").removesuffix(".txt") for part in asked]
    for name in ("train_imagenet", "val_imagenet"):
        (root / name).symlink_to(root / "images_largescale/imagenet_1k/val")
    assert main("fit", [*folders, str(root)]) == 2
    assert "wanted a list (.txt, .csv) among the images" in capsys.readouterr().err
