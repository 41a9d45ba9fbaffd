"""Sets that TFDS has prepared: here it prepares them itself, offline, from pictures made here."""

import importlib.util
import io
import os
import shutil
import sys
from subprocess import run

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from damage import flipped
from pictures import encoded, picture
from PIL import Image

from jaxood.cli import main
from jaxood.data.class_names import imagenet_wnids
from jaxood.data.digits import digits_ood, digits_train_and_test
from jaxood.data.files import ImageFiles
from jaxood.data.images import ImageSet, is_image_set, wholes
from jaxood.data.records import Records, Shard, TfRecordFile
from jaxood.data.sources import image_set
from jaxood.data.suites import suite
from jaxood.data.tfds import open_tfds
from jaxood.detectors.grammar import parse_methods
from jaxood.errors import UsageError
from jaxood.flows.fitting import bank_indices
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.registry import LoadedModel
from jaxood.preprocessing import Preprocessing
from jaxood.runner import runner as runner_module
from jaxood.runner.runner import Runner

tfds.disable_progress_bar()

SMALL = Preprocessing(32, 32)
KINDS = ("array_record", "tfrecord")
COINS = (  # of 32 x 32 pixels, so that a model with such input takes them as PIL decodes them
    encoded(picture(32, 32), "JPEG"),
    encoded(picture(32, 32).rotate(90), "PNG"),
    b"no picture",
    encoded(picture(32, 32, "L"), "JPEG"),
    encoded(picture(32, 32, "P"), "PNG"),
    encoded(picture(32, 32, "LA"), "PNG"),
    encoded(picture(32, 32, "CMYK"), "JPEG"),
)
LABELS = (1, 0, 2, 2, 1, 0, 0)


ONE_KIND = pytest.mark.parametrize("coins", ["array_record"], indirect=True)


def prepare(folder, kind, name, splits, label=None, config=None, image=None, shards=2):
    """A set of TFDS: its images and labels by split, in their order."""
    label = tfds.features.ClassLabel(names=["penny", "dime", "cent"]) if label is None else label
    features = {"image": image or tfds.features.Image()} | ({"label": label} if label else {})
    splits = {
        split: [
            (row, {"image": image} | ({"label": number} if label else {}))
            for row, (image, number) in enumerate(zip(*examples, strict=True))
        ]
        for split, examples in splits.items()
    }
    builder = tfds.dataset_builders.AdhocBuilder(
        name=name,
        version="1.2.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets=splits,
        config=config,
        data_dir=folder,
        file_format=kind,
        disable_shuffling=True,
    )
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    return builder


@pytest.fixture(scope="module", params=KINDS)
def coins(request, tmp_path_factory):
    """The folder of a prepared set; its format."""
    folder = tmp_path_factory.mktemp(request.param)
    splits = {"train": (COINS, LABELS), "test": (COINS[:3], LABELS[:3])}
    return folder, request.param, prepare(folder, request.param, "coins", splits)


@pytest.fixture(autouse=True)
def labels_are_kept_here(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXOOD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def here(coins, monkeypatch):
    """The sets of `coins` are those that there are."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(coins[0]))
    return coins[1]


def flip(path, index):
    """Flips a bit of a byte."""
    generator = np.random.default_rng(0)
    path.write_bytes(next(flipped(path.read_bytes(), [index], generator)))


def decoded(images):
    """By index, all images that can be decoded, and what is wrong with the others."""
    pixels, reasons = {}, {}
    for batch in images.batches(SMALL, 3):
        pixels |= {int(i): batch.images[row] for row, i in enumerate(batch.indices) if i >= 0}
        reasons |= batch.reasons
    return {index: pixels[index] for index in pixels if index not in reasons}, reasons


def test_pixels_are_pils_and_the_rest_as_prepared(here):
    images = image_set("tfds:coins:train")
    assert isinstance(images, ImageSet) and images.name == "coins" and len(images) == len(COINS)
    assert images.labels.tolist() == list(LABELS)
    assert images.class_names == ("penny", "dime", "cent") and not images.labels_are_classes
    assert image_set("tfds:coins:1.2.0:train", "mine").name == "mine"
    pixels, reasons = decoded(images)
    assert sorted(pixels) == [0, 1, 3, 4, 5, 6] and list(reasons) == [2]
    assert "not an image" in reasons[2]
    for index, found in pixels.items():
        expected = Image.open(io.BytesIO(COINS[index])).convert("RGB")
        np.testing.assert_array_equal(found, np.asarray(expected))
    assert list(whole := dict(wholes(images, SMALL, 3))) == sorted(pixels)
    for index, found in pixels.items():
        np.testing.assert_array_equal(whole[index].pixels[whole[index].inside], found)


def test_order_ids_and_bytes_are_those_that_tfds_reads(coins, here):
    """`as_dataset` knows ids, `as_data_source` reads ArrayRecord; a sum of splits has both."""
    builder, split = coins[2], "test+train[3:6]"
    images = image_set(f"tfds:coins:{split}")
    assert len(set(images.ids)) == len(images.ids) == 6 and images.ids is images.ids
    decoders = {"image": tfds.decode.SkipDecoding()}
    if here == "tfrecord":
        config = tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=1)
        read = builder.as_dataset(split=split, decoders=decoders, read_config=config)
        expected = list(tfds.as_numpy(read))
        assert [example["tfds_id"].decode() for example in expected] == list(images.ids)
    else:
        expected = builder.as_data_source(split=split, decoders=decoders)
    assert [int(example["label"]) for example in expected] == images.labels.tolist()
    for index, example in enumerate(expected):
        (found,) = images._features(int(images.indices[index]))["image"].bytes_list.value
        assert found == example["image"]


def test_parts_of_a_set(here):
    images = image_set("tfds:coins:train")
    pixels, _ = decoded(images)
    part = images.subset(np.array([6, 0, 2, 4])).subset(np.array([0, 2, 3]))
    assert part.labels.tolist() == [0, 2, 1] and part.class_names == images.class_names
    assert list(part.ids) == [images.ids[index] for index in (6, 2, 4)]
    found, reasons = decoded(part)
    np.testing.assert_array_equal(found[0], pixels[6])
    np.testing.assert_array_equal(found[2], pixels[4])
    assert list(reasons) == [1]
    (rest,) = images.batches(SMALL, 4, start=5)
    assert rest.indices.tolist() == [5, 6, -1, -1] and rest.valid.tolist() == [True, True, 0, 0]
    np.testing.assert_array_equal(rest.images[0], pixels[5])
    sliced = image_set("tfds:coins:train[2:5]")
    assert sliced.ids == images.ids[2:5]


def test_an_image_folder_of_tfds(tmp_path, monkeypatch):
    """The same files, read as such and from the set that TFDS made of them, shuffled."""
    for index in range(6):
        path = tmp_path / "files" / "train" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(32, 32).rotate(7 * index), "PNG"))
    folder = tfds.folder_dataset.ImageFolder(tmp_path / "files")
    decoders = {"image": tfds.decode.SkipDecoding()}
    examples = list(tfds.as_numpy(folder.as_dataset(split="train", decoders=decoders)))
    tfds.dataset_builders.store_as_tfds_dataset(
        "beetles",
        "1.0.0",
        folder.info.features,
        {"train": [(row, example) for row, example in enumerate(examples)]},
        data_dir=tmp_path,
        file_format="array_record",
    )
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    found, files = image_set("tfds:beetles"), ImageFiles.from_path(tmp_path / "files" / "train")
    assert found.class_names == files.class_names == ("a", "b")

    def labelled(images):
        pixels, reasons = decoded(images)
        assert not reasons
        return sorted((images.labels[index], pixels[index].tobytes()) for index in pixels)

    assert labelled(found) == labelled(files)


class Beetles(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder as users write them, with configurations and other features."""

    VERSION = tfds.core.Version("2.0.1")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("few", "many")]
    pkg_dir_path = None

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(32, 32, 1)),
            "label": tfds.features.ClassLabel(num_classes=3),
            "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
            "file_name": tfds.features.Text(),
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"test": self._generate_examples(4 if self.builder_config.name == "few" else 9)}

    def _generate_examples(self, count):
        box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
        for index in range(count):
            values = {"label": index % 3 - (index == 3), "boxes": [box] * index}
            pixels = np.full((32, 32, 1), 20 * index, np.uint8)
            yield index, {"image": pixels, "file_name": f"{index}.png"} | values


@pytest.mark.parametrize("kind", KINDS)
def test_a_builder_with_configurations(tmp_path, monkeypatch, kind):
    for config in ("few", "many"):
        Beetles(data_dir=tmp_path, config=config, file_format=kind).download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    few, many = image_set("tfds:beetles/few"), image_set("tfds:beetles/many:2.*.*:test")
    assert (few.name, len(few), len(many)) == ("beetles/few", 4, 9)
    assert few.labels_are_classes and few.class_names == ()  # numbers: "0", "1", "2"
    pixels, _ = decoded(few)
    levels = [int(pixels[index][0, 0, 2]) for index in range(4)]  # grey in all channels
    expected = {0: 0, 20: 1, 40: 2, 60: -1}
    assert [expected[level] for level in levels] == few.labels.tolist()
    with pytest.raises(UsageError, match="There is beetles/few:2.0.1 and beetles/many:2.0.1$"):
        image_set("tfds:beetles/some:test")


def test_what_labels_mean(tmp_path, monkeypatch):
    def labels(name, label, numbers, kind="array_record"):
        prepare(tmp_path, kind, name, {"only": (COINS[:1] * len(numbers), numbers)}, label)
        images = image_set(f"tfds:{name}")
        found = None if images.labels is None else images.labels.tolist()
        return found, images.labels_are_classes, images.class_names

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    names, wnids = tfds.features.ClassLabel, imagenet_wnids()
    assert labels("order", names(names=wnids), [999, 0, 7]) == ([999, 0, 7], True, ())
    some = names(names=[wnids[390], wnids[5]])
    assert labels("wnids", some, [1, 0, -1]) == ([5, 390, -1], True, ())
    assert labels("digits", names(names=["1", "0"]), [0, 1]) == ([1, 0], True, ())
    assert labels("untold", names(names=["b", "a"]), [-1, -1]) == (None, False, ("b", "a"))
    assert labels("unlabelled", False, [0, 0]) == (None, False, ())
    assert labels("text", tfds.features.Text(), ["x", "y"]) == (None, False, ())


@ONE_KIND
def test_labels_are_read_when_asked_for_and_once(here, tmp_path, monkeypatch):
    read, asked = Records.__getitem__, []

    def counted(self, index):
        asked.append(index)
        return read(self, index)

    monkeypatch.setattr(Records, "__getitem__", counted)
    images = open_tfds("tfds:coins:train")
    part = images.subset(np.array([4, 1]))
    assert not asked
    assert part.labels.tolist() == [1, 0] and sorted(asked) == [1, 4]
    assert images.labels.tolist() == list(LABELS) and len(asked) == 2 + 7
    assert open_tfds("tfds:coins:train").labels.tolist() == list(LABELS) and len(asked) == 2 + 7
    for kept in (tmp_path / "cache" / "tfds").iterdir():
        flip(kept, -150)
    assert open_tfds("tfds:coins:train").labels.tolist() == list(LABELS) and len(asked) == 2 + 14


def test_fingerprints(coins, here):
    def fingerprint(source):
        return image_set(source).fingerprint()

    whole = fingerprint("tfds:coins:train")
    assert whole == fingerprint("tfds:coins:1.2.0:train")
    images = image_set("tfds:coins:train")
    different = {fingerprint(f"tfds:coins:{split}") for split in ("test", "train[1:]", "train[:6]")}
    different |= {images.subset(np.array(rows)).fingerprint() for rows in ([0, 1], [1, 0])}
    assert len(different | {whole}) == 6
    path = next((coins[0] / "coins").glob("*/*train*-00000-*"))
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    changed = fingerprint("tfds:coins:train")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert changed != whole == fingerprint("tfds:coins:train")


@ONE_KIND
def test_an_interrupted_pass_goes_on(here, tmp_path, monkeypatch):
    """Ten images, eight a batch, as there are eight devices."""
    network = digits_cnn(6)
    initialise(network, jax.random.key(0))
    runner = Runner(LoadedModel(network, Preprocessing(8, 8), "digits_cnn", "digits", "hash"))

    def extracted(**options):
        images = image_set("tfds:coins:train+test")
        return images, runner.extract(images, batch_size=8, **options)

    def stop(done, count):
        if done > 8:
            raise KeyboardInterrupt

    images, whole = extracted()
    assert whole.indices.tolist() == [0, 1, 3, 4, 5, 6, 7, 8]
    assert [(skipped.index, skipped.id) for skipped in whole.skipped] == [
        (index, images.ids[index]) for index in (2, 9)
    ]
    monkeypatch.setattr(runner_module, "CHUNK", 1)
    with pytest.raises(KeyboardInterrupt):
        extracted(store=tmp_path, progress=stop)
    told = []
    _, again = extracted(store=tmp_path, progress=lambda done, count: told.append(done))
    assert told == [8, 10] and again.skipped == whole.skipped
    np.testing.assert_array_equal(again.indices, whole.indices)
    np.testing.assert_allclose(again.logits, whole.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_files_cost_their_images_only(coins, tmp_path, monkeypatch, damage):
    """TFRecord: a cut, or a length that points beyond the file; ArrayRecord sees every bit."""
    shutil.copytree(coins[0], tmp_path / "sets")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
    path = next((tmp_path / "sets" / "coins").glob("*/*train*-00000-*"))
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:200])
    else:
        flip(path, 5 if coins[1] == "tfrecord" else 80)
    images = image_set("tfds:coins:train")
    pixels, reasons = decoded(images)
    lost = [index for index, reason in reasons.items() if "cannot be read" in reason]
    assert lost and all("train" in images.ids[index] for index in lost)
    assert all(f"{path.name}__" in images.ids[index] for index in lost)
    assert {4, 5, 6} <= set(pixels)  # of the other file
    labels = images.labels
    assert [labels[index] for index in lost] == [-1] * len(lost)
    assert labels[4:].tolist() == list(LABELS[4:])
    assert not (tmp_path / "cache" / "tfds").exists()  # what could not be read may be there again


def test_records_by_hand(tmp_path):
    """Two files of three and two records, the first and the last left out."""
    contents = [b"", b"one", b"two" * 9, b"three", b"four"]

    def framed(content):  # checksums are not looked at
        return len(content).to_bytes(8, "little") + b"...." + content + b"...."

    (tmp_path / "a").write_bytes(b"".join(map(framed, contents[:3])))
    (tmp_path / "b").write_bytes(b"".join(map(framed, contents[3:])) + b"\0\0")
    shards = [Shard(str(tmp_path / "a"), 1, 3), Shard(str(tmp_path / "b"), 0, 1)]
    records = Records(shards, TfRecordFile)
    assert [records[index] for index in range(len(records))] == contents[1:4]
    assert [records.locate(index)[1] for index in range(3)] == [1, 2, 0]


@ONE_KIND
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tfds:", "train: got tfds:, wanted tfds:NAME:SPLIT or tfds:NAME/CONFIG:SPLIT"),
        ("tfds:coins/../coins:test", "wanted tfds:NAME:SPLIT"),
        ("tfds:coins:1.2:test", "wanted tfds:NAME:SPLIT|a split: train, test"),
        ("tfds:coins:test split", "wanted tfds:NAME:SPLIT"),
        ("tfds:user:coins:test", "user:coins"),
        ("tfds:coins", r"tfds:coins without a split, wanted a split: train, test, a part \(train"),
        ("tfds:coins:half", r"Unknown split 'half'.*wanted a split: train, test"),
        ("tfds:coins:test[", r"Error parsing split 'test\['.*wanted a split"),
        ("tfds:coins:test[3:]", "without an image in it, wanted a split"),
        ("tfds:coins:2.0.0:test", "wanted a set that TFDS has prepared.*There is coins:1.2.0$"),
        ("tfds:coins/big:test", "There is coins:1.2.0$"),
        (
            "tfds:cifar10:test",
            r"Prepare it, with .*: python -c .*tfds\.builder\('cifar10'\)\.download_and",
        ),
        ("tfds:cifr10:test", "Did you mean cifar10 or cifar100"),
        ("tfds:nothing_like_it:test", "in the folder that TFDS_DATA_DIR names$"),
        (["tfds:coins:test", "tfds:coins:train"], "2 sources, of TFDS among them, wanted a set"),
    ],
)
def test_what_is_no_set(here, source, message):
    with pytest.raises(UsageError, match=message) as raised:
        image_set(source, argument="train")
    assert raised.value.argument == "train" and "\n" not in str(raised.value)


def test_what_holds_no_images_or_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))

    def refused(name, message):
        with pytest.raises(UsageError, match=message):
            image_set(f"tfds:{name}")

    pixels = np.zeros((4, 4, 1), np.float32)
    floats = tfds.features.Image(shape=(4, 4, 1), dtype=np.float32)
    prepare(tmp_path, "array_record", "depth", {"only": ([pixels] * 2, [0, 1])}, image=floats)
    refused("depth", "tfds:depth, whose pixels are floats, wanted pixels of 8 or 16 bits")
    tensor = tfds.features.Tensor(shape=(4, 4, 1), dtype=np.float32)
    prepare(tmp_path, "array_record", "raw", {"only": ([pixels] * 2, [0, 1])}, image=tensor)
    refused("raw", "which has image, label, wanted a set with a feature `image` that is an image")
    prepare(tmp_path, "parquet", "table", {"only": (COINS[:2], [0, 1])})
    refused("table", "tfds:table, prepared as parquet, wanted array_record or tfrecord")
    builder = prepare(tmp_path, "tfrecord", "lost", {"only": (COINS[:2], [0, 1])}, shards=1)
    (path,) = builder.data_path.glob("*tfrecord*")
    path.unlink()
    refused("lost", f"whose {path.name} cannot be read .No such file or directory., wanted all of")
    (builder.data_path / "dataset_info.json").write_text("{")
    refused("lost", "whose description cannot be read")


def test_a_name_that_other_paths_may_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tfds:x").mkdir()
    (tmp_path / "tfds:x" / "a.png").write_bytes(COINS[1])
    assert len(image_set("./tfds:x")) == 1


def test_a_set_is_known_without_asking_it():
    class Mine:
        name, labels_are_classes, class_names = "mine", False, ()

        @property
        def labels(self):
            raise AssertionError("labels were asked for")

        ids = labels

        def __len__(self): ...
        def fingerprint(self): ...
        def subset(self, indices): ...
        def batches(self, preprocessing, batch_size, start=0): ...

    mine = Mine()
    assert is_image_set(mine)
    del Mine.subset
    assert not is_image_set(mine)


@pytest.mark.parametrize("coins", ["tfrecord"], indirect=True)
def test_opening_and_reading_need_no_tensorflow(coins):
    script = (
        "import sys\n"
        "import jaxood\n"
        "from jaxood.data.sources import image_set\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "images = image_set(image_set('tfds:coins:train'))\n"
        "assert not {'ids', 'labels'} & set(vars(images))\n"
        "print(images.labels.tolist(), 'tensorflow' in sys.modules)\n"
    )
    environment = os.environ | {"TFDS_DATA_DIR": str(coins[0])}
    ended = run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert ended.stdout == f"{list(LABELS)} False\n", ended.stderr


def test_a_suite_of_published_sets(tmp_path, monkeypatch):
    """Under their names, so that TFDS's own code of these sets is met."""
    splits = {"train": (COINS[:2], [2, 0]), "test": (COINS[3:6], [1, 2, 0])}
    for name in ("cifar10", "cifar100", "svhn_cropped"):
        prepare(tmp_path, "array_record", name, splits)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    found = suite("cifar10")
    assert found.train.labels.tolist() == [2, 0] and not found.missing
    assert (found.id_test.name, len(found.id_test)) == ("cifar10", 3)
    assert list(found.ood) == ["cifar100", "svhn"] and found.groups["far"] == ("svhn",)
    assert found.ood["svhn"].ids[0] == "svhn_cropped-test.array_record-00000-of-00002__0"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The digits as a set of TFDS, and the same as files; a few of each."""
    folder = tmp_path_factory.mktemp("digits")
    train, test = digits_train_and_test()
    sets = {"train": train, "test": test, "noise": digits_ood()["noise"]}
    splits = {}
    for name, images in sets.items():
        count = 90 if name == "train" else 40
        pngs = [encoded(Image.fromarray(pixels), "PNG") for pixels in images.images[:count]]
        labels = [0] * count if images.labels is None else images.labels[:count].tolist()
        splits[name] = pngs, [label if 0 <= label < 6 else 0 for label in labels]
        for row, (png, label) in enumerate(zip(*splits[name], strict=True)):
            path = folder / "files" / name / str(label) / f"{row:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png)
    for name in sets:  # in the order in which folders are listed
        order = np.argsort(splits[name][1], kind="stable")
        splits[name] = tuple([column[row] for row in order] for column in splits[name])
    numbers = tfds.features.ClassLabel(names=[str(number) for number in range(6)])
    prepare(folder, "array_record", "small_digits", splits, numbers)
    return folder


@pytest.mark.usefixtures("unchecked")
def test_labels_of_the_bank_alone_are_read(digits, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits))
    read, asked = Records.__getitem__, set()

    def noted(self, index):
        asked.add(index)
        return read(self, index)

    monkeypatch.setattr(Records, "__getitem__", noted)
    train = open_tfds("tfds:small_digits:train")
    bank = bank_indices(train, parse_methods(["mahalanobis"], {}, {}), 0.1, seed=0)
    assert len(bank) == 9 and asked == set(bank.tolist())


@pytest.mark.long
def test_a_whole_evaluation_by_command(digits, cache, tmp_path, monkeypatch, capsys):
    """Scores, labels and accuracy are those of the same images in folders."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits))

    def evaluated(output, train, id_test, ood):
        asked = ["--train-dir", train, "--id-dir", id_test, "--ood-dir", f"far={ood}"]
        asked += ["--method", "knn", "mahalanobis", "--model", "digits_cnn"]
        asked += ["--cache-dir", cache, "--output", tmp_path / output]
        assert main("evaluate", list(map(str, asked))) == 0
        return np.load(tmp_path / output / "scores.npz")

    names = ("train", "test", "noise")
    found = evaluated("tfds", *(f"tfds:small_digits:{name}" for name in names))
    assert "accuracy on in distribution" in capsys.readouterr().out
    expected = evaluated("files", *(digits / "files" / name for name in names))
    assert set(found) == set(expected)
    for key in found:
        if not key.startswith("ids/"):
            np.testing.assert_array_equal(found[key], expected[key], key)
    assert found["ids/far"][3] == "small_digits-noise.array_record-00000-of-00002__3"
    same = ["--id-dir", "tfds:small_digits:test", "--ood-dir", "a=tfds:small_digits:test"]
    assert main("evaluate", [*same, "--output", str(tmp_path / "same")]) == 2
    assert "wanted another folder than that of" in capsys.readouterr().err


@pytest.mark.long
def test_fitting_and_detecting_by_command(digits, cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits))
    file, kept = str(tmp_path / "d.safetensors"), ["--cache-dir", str(cache)]
    asked = ["--train-dir", "tfds:small_digits:train", "--id-dir", "tfds:small_digits:test"]
    asked += ["--model", "digits_cnn", "--method", "knn", "--output", file]
    assert main("fit", [*asked, *kept]) in (None, 0)
    capsys.readouterr()
    asked = ["tfds:small_digits:test[:5]", "--detector", file, "--format", "csv"]
    assert main("detect", [*asked, *kept]) in (None, 0)
    header, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 5 and rows[0].startswith("small_digits-test.array_record-00000-of-00002__0")


@ONE_KIND
def test_the_package_that_reads_array_records(here, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="Install it: pip install array_record"):
        open_tfds("tfds:coins:test")
