"""A user's own model made elastic: what is found in it, and that its sub-networks are right."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gnomon.errors import SpaceError
from gnomon.search_spaces import space_from_spec
from gnomon.search_spaces.own_model import OwnModel
from gnomon.testing import ElasticSuite, SearchSpaceSuite

HERE = __name__


class Gate(nn.Module):
    """Squeeze-and-excitation."""

    def __init__(self, channels):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(self.pool(x)))))


class InvertedResidual(nn.Module):
    """As torchvision writes it."""

    def __init__(self, inputs, outputs, stride, expansion, kernel=3, gate=False):
        super().__init__()
        inner = inputs * expansion
        layers = []
        if expansion > 1:
            layers += [nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()]
        depthwise = nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False)
        layers += [depthwise, nn.BatchNorm2d(inner), nn.ReLU6()]
        if gate:
            layers.append(Gate(inner))
        layers += [nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.use_res_connect = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
            InvertedResidual(8, 8, 1, 1),
            InvertedResidual(8, 12, 2, 4, kernel=5),
            InvertedResidual(12, 12, 1, 4, kernel=7, gate=True),
            InvertedResidual(12, 12, 1, 4, kernel=5),
            InvertedResidual(12, 16, 1, 2),
            nn.Sequential(nn.Conv2d(16, 40, 1, bias=False), nn.BatchNorm2d(40), nn.ReLU6()),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(40, classes))

    def forward(self, x):
        x = self.features(x)
        return self.classifier(nn.functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class BasicBlock(nn.Module):
    """ResNet's, with ReLU behind the addition."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        held = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + held)


def resnet():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), BasicBlock(8, 8), BasicBlock(8, 16, 2), BasicBlock(16, 16), BasicBlock(16, 16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def trained():
    """Always the same weights, as a file of them would give, with statistics off their initial state."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = MobileNet()
        model.train()(torch.randn(16, 3, 16, 16))
    return model.eval()


def space_of(name, shape=(3, 16, 16), **arguments):
    return OwnModel({"_target_": f"{HERE}.{name}"}, shape, **arguments)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet.safetensors"
    save_file(trained().state_dict(), path)
    return str(path)


class TestOwnModelSpace(SearchSpaceSuite):
    classes = 5
    population = 12
    models = 2

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return space_of("MobileNet", classes=5)


class TestElasticOwnModel(ElasticSuite):
    networks = 3
    transforms_weights = True
    starts_trained = True

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls, weights):
        return space_of("MobileNet", weights=weights)


class TestElasticResNet(ElasticSuite):
    networks = 2

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return space_of("resnet", (1, 14, 14), sharing="crop")


def test_what_is_found_in_a_mobilenet():
    space = space_of("MobileNet")
    found = {decision.name: (decision.choices, dict(decision.active_when)) for decision in space.decisions}
    assert found == {
        "features.1.depth": ((0, 1), {}),
        "features.3.depth": ((0, 1, 2), {}),
        "features.2.conv.0.width": ((16, 24, 32), {}),
        "features.3.conv.0.width": ((24, 40, 48), {"features.3.depth": (1, 2)}),
        "features.4.conv.0.width": ((24, 40, 48), {"features.3.depth": (2,)}),
        "features.5.conv.0.width": ((12, 20, 24), {}),
        "features.5.conv.6.width": ((8, 12, 16), {}),
        "features.6.0.width": ((24, 32, 40), {}),
        "features.2.conv.3.kernel": ((3, 5), {}),
        "features.3.conv.3.kernel": ((3, 5, 7), {"features.3.depth": (1, 2)}),
        "features.4.conv.3.kernel": ((3, 5), {"features.3.depth": (2,)}),
    }
    assert not space.fixed


def test_what_is_found_in_a_resnet():
    space = space_of("resnet", (1, 14, 14))
    assert [d.name for d in space.decisions] == ["2.depth", "4.depth", *(f"{i}.conv1.width" for i in (2, 3, 4, 5))]


def test_the_given_model_is_the_reference(weights):
    space = space_of("MobileNet", weights=weights)
    x = torch.randn(2, 3, 16, 16)
    expected = trained()(x)
    model = space.elastic().eval()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.extract(space.named["given"])(x), expected, rtol=1e-4, atol=1e-5)
    assert next(iter(space.named)) == "given"


def test_narrower_widths_keep_the_most_important_channels(weights):
    space = space_of("MobileNet", weights=weights)
    config = {**space.named["given"], "features.4.conv.0.width": 24}
    narrow = space.elastic().extract(config)
    whole = trained().features[4].conv
    importance = whole[6].weight.abs().sum((0, 2, 3))
    kept = importance.argsort(descending=True)[:24]
    torch.testing.assert_close(narrow.features[4].conv[6].weight, whole[6].weight[:, kept])
    torch.testing.assert_close(narrow.features[4].conv[1].running_mean, whole[1].running_mean[kept])


def test_blocks_that_are_left_out_are_the_last_ones():
    space = space_of("MobileNet")
    model = space.build({**space.named["smallest"], "features.3.depth": 1, **_block_three()})
    assert isinstance(model.features[4], nn.Identity)
    assert isinstance(model.features[3], InvertedResidual)
    assert model.features[3].conv[3].kernel_size == (3, 3)


def _block_three():
    return {"features.3.conv.0.width": 24, "features.3.conv.3.kernel": 3}


def test_an_equal_space_is_made_elsewhere(weights):
    space = space_of("MobileNet", weights=weights, widths=[0.25, 1.0], sharing="crop")
    other = space_from_spec(space.spec())
    assert other.decisions == space.decisions
    assert other.spec() == space.spec()
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(other.elastic().eval()(x), space.elastic().eval()(x))


class Shared(nn.Module):
    """One convolution called twice, which cannot be narrower in one place only."""

    def __init__(self):
        super().__init__()
        self.stem, self.twice, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 16, 3)
        self.last, self.out = nn.Conv2d(16, 8, 1), nn.Linear(8, 2)

    def forward(self, x):
        x = self.twice(self.twice(self.stem(x)))
        return self.out(self.last(self.head(x)).mean((2, 3)))


def test_shared_modules_stay_and_are_named():
    space = space_of("Shared", (1, 8, 8))
    assert space.fixed == {"twice": "is called more than once"}
    assert [d.name for d in space.decisions] == ["head.width", "last.width"]


class Concatenating(nn.Module):
    """Channels that a concatenation reads cannot change; grouped convolutions stay as they are."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
        self.grouped, self.out = nn.Conv2d(8, 8, 3, groups=2), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.grouped(torch.cat([self.a(x), self.b(x)], 1)).mean((2, 3)))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def no_module():
    return 3


def raising():
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("target", "arguments", "expected"),
    [
        ("Concatenating", {}, "grouped has 2 groups"),
        ("Branching", {}, "cannot trace"),
        ("no_module", {}, "no torch module"),
        ("raising", {}, "no such thing"),
        ("missing", {}, "cannot import"),
        ("Shared", {"classes": 7}, "classes=7"),
        ("Shared", {"weights": "nowhere.safetensors"}, "weights"),
        ("Shared", {"widths": [0.0]}, "widths"),
        ("Shared", {"widths": 1}, "widths"),
        ("Shared", {"sharing": "some"}, "sharing"),
        ("MobileNet", {}, "input_shape"),
    ],
)
def test_what_is_not_supported_is_named(target, arguments, expected):
    with pytest.raises(SpaceError, match=expected):
        space_of(target, (1, 8, 8), **arguments)


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a.weight": torch.zeros(1)}, path)
    with pytest.raises(SpaceError, match=r"weights=.*stem\.weight"):
        space_of("Shared", (1, 8, 8), weights=str(path))


@pytest.mark.parametrize("model", [None, {}, {"_target_": 3}])
def test_a_model_needs_a_target(model):
    with pytest.raises(SpaceError, match="model="):
        OwnModel(model, (1, 8, 8))
