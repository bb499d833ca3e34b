from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from upsr_core.scheduling_unw import UNWScheduler

GOLDEN = Path(__file__).parents[1] / "data" / "golden_scheduler.safetensors"
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return {
        name: tensor if tensor.dtype == torch.float64 else tensor.float() for name, tensor in load_file(GOLDEN).items()
    }


@pytest.fixture
def scheduler() -> UNWScheduler:
    scheduler = UNWScheduler()
    scheduler.set_timesteps()
    return scheduler


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def state_tensors(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """x0, Y, noise, w as they may occur."""
    x0, upsampled, noise = (randn(*shape, seed=seed, dtype=dtype) for seed in range(3))
    return x0, upsampled, noise, 0.4 + 0.6 * randn(*shape, seed=3, dtype=dtype).sigmoid()


# Published schedules and processes


def test_schedule_is_the_published_one(golden: dict[str, torch.Tensor]) -> None:
    scheduler = UNWScheduler()
    torch.testing.assert_close(scheduler.sqrt_etas, golden["sched.sqrt_etas"], atol=1e-12, rtol=0)
    torch.testing.assert_close(scheduler.etas, golden["sched.etas"], atol=1e-12, rtol=0)
    assert scheduler.etas.dtype == torch.float64


def test_15_step_schedule_is_a_configuration(golden: dict[str, torch.Tensor]) -> None:
    scheduler = UNWScheduler(15)
    torch.testing.assert_close(scheduler.sqrt_etas, golden["sched15.sqrt_etas"], atol=1e-12, rtol=0)


@pytest.mark.parametrize("t", range(5))
def test_forward_process_is_the_published_one(golden: dict[str, torch.Tensor], t: int) -> None:
    scheduler = UNWScheduler()
    x0, upsampled, noise, weight = (golden[f"q.{name}"] for name in ("x0", "y", "noise", "w"))
    for timestep in (t, torch.tensor(t), torch.tensor([t, t])):
        state = scheduler.add_noise(x0, upsampled, noise, timestep, weight)
        torch.testing.assert_close(state, golden[f"q.{t}.xt"], **TOLERANCE)
        scaled = scheduler.scale_model_input(golden[f"q.{t}.xt"], timestep)
        torch.testing.assert_close(scaled, golden[f"q.{t}.scaled_input"], **TOLERANCE)


@pytest.mark.parametrize("t", range(5))
def test_fully_stochastic_step_is_the_published_posterior(
    golden: dict[str, torch.Tensor], scheduler: UNWScheduler, t: int
) -> None:
    def step(noise: torch.Tensor) -> torch.Tensor:
        output = scheduler.step(
            golden["q.x0"], t, golden[f"q.{t}.xt"], golden["q.y"], golden["q.w"], 1.0, variance_noise=noise
        )
        return output.prev_sample

    zeros = torch.zeros_like(golden["q.x0"])
    mean = step(zeros)
    torch.testing.assert_close(mean, golden[f"q.{t}.post_mean"], **TOLERANCE)
    variance = (step(zeros + 1) - mean) ** 2
    torch.testing.assert_close(variance, golden[f"q.{t}.post_var"], **TOLERANCE)


def test_posterior_variance_table(golden: dict[str, torch.Tensor], scheduler: UNWScheduler) -> None:
    zeros = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    steps = [scheduler.step(zeros, t, zeros, stochasticity=1.0, variance_noise=zeros + 1)[0] for t in range(5)]
    variances = torch.cat(steps).flatten() ** 2
    # The published table holds the smallest non-zero variance at step 0 too, where no noise is added.
    torch.testing.assert_close(variances[1:], golden["sched.posterior_variance"][1:], atol=1e-12, rtol=1e-9)
    assert variances[0] == 0


# The reverse step


@pytest.mark.parametrize("stochasticity", [0.0, 0.3, 1.0])
def test_step_keeps_the_marginals_for_any_stochasticity(stochasticity: float) -> None:
    """With the true x0 and noise, x_t goes to x_{t-1} with Eq. 7's mean and variance."""
    scheduler = UNWScheduler()
    scheduler.set_timesteps()
    shape = (1, 1, 400, 400)
    x0, upsampled, noise, weight = (torch.full(shape, v, dtype=torch.float64) for v in (0.2, -0.3, 0.0, 0.7))
    noise = randn(*shape, seed=5, dtype=torch.float64)
    state = scheduler.add_noise(x0, upsampled, noise, 3, weight)
    generator = torch.Generator().manual_seed(6)
    previous = scheduler.step(x0, 3, state, upsampled, weight, stochasticity, generator).prev_sample
    eta = scheduler.etas[2].item()
    assert previous.mean().item() == pytest.approx(0.2 + eta * -0.5, abs=0.02)
    assert previous.std().item() == pytest.approx(2.5 * eta**0.5 * 0.7, rel=0.01)


def test_deterministic_steps_with_the_true_image_stay_on_the_forward_path(scheduler: UNWScheduler) -> None:
    x0, upsampled, noise, weight = state_tensors(2, 3, 8, 8, dtype=torch.float64)
    state = scheduler.add_noise(x0, upsampled, noise, 4, weight)
    for t in scheduler.timesteps[:-1]:
        state = scheduler.step(x0, t, state, upsampled, weight).prev_sample
        torch.testing.assert_close(state, scheduler.add_noise(x0, upsampled, noise, int(t) - 1, weight))


def test_upsampled_image_cancels_out_of_a_fully_stochastic_step(scheduler: UNWScheduler) -> None:
    x0, upsampled, noise, weight = state_tensors(1, 3, 4, 4, dtype=torch.float64)
    steps = [scheduler.step(x0, 2, noise, y, weight, 1.0, variance_noise=noise).prev_sample for y in (upsampled, None)]
    torch.testing.assert_close(*steps)


def test_last_step_returns_the_estimate_itself(scheduler: UNWScheduler) -> None:
    x0, upsampled, noise, weight = state_tensors(1, 3, 4, 4)
    output = scheduler.step(x0, 0, noise, upsampled, weight, stochasticity=1.0)
    assert torch.equal(output.prev_sample, x0)
    assert torch.equal(output.pred_original_sample, x0)


def test_estimate_is_not_clipped(scheduler: UNWScheduler) -> None:
    x0 = torch.full((1, 3, 4, 4), 3.0)
    assert scheduler.step(x0, 0, x0, x0).prev_sample.max() == 3


def test_zero_noise_weight_is_finite_and_noise_free(scheduler: UNWScheduler) -> None:
    x0, upsampled, noise, weight = state_tensors(1, 3, 4, 4)
    state = scheduler.prior_sample(upsampled, noise, 0 * weight)
    torch.testing.assert_close(state, upsampled)
    previous = scheduler.step(x0, 4, state, upsampled, 0 * weight, 1.0, variance_noise=noise).prev_sample
    assert previous.isfinite().all()


def test_tuple_output(scheduler: UNWScheduler) -> None:
    x0, upsampled, noise, weight = state_tensors(1, 3, 4, 4)
    output = scheduler.step(x0, 4, noise, upsampled, weight)
    previous, original = scheduler.step(x0, 4, noise, upsampled, weight, return_dict=False)
    assert torch.equal(previous, output.prev_sample)
    assert torch.equal(original, output.pred_original_sample)


def test_one_generator_per_image_makes_images_independent_of_the_batch(scheduler: UNWScheduler) -> None:
    x0, upsampled, noise, weight = state_tensors(3, 3, 4, 4)

    def step(images: slice) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in range(3)][images]
        arguments = (x0[images], 4, noise[images], upsampled[images], weight[images], 0.5, generators)
        return scheduler.step(*arguments).prev_sample

    torch.testing.assert_close(step(slice(0, 3))[1:2], step(slice(1, 2)), atol=0, rtol=0)


def test_global_random_state_is_left_alone(scheduler: UNWScheduler) -> None:
    x0, upsampled, noise, weight = state_tensors(1, 3, 4, 4)
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    scheduler.step(x0, 4, noise, upsampled, weight, stochasticity=1.0, generator=generator)
    assert torch.equal(torch.get_rng_state(), before)


def test_pixel_space_and_unshuffled_space_agree(scheduler: UNWScheduler) -> None:
    pixels = state_tensors(2, 3, 16, 16)
    folded = tuple(torch.pixel_unshuffle(tensor, 4) for tensor in pixels)
    states = [scheduler.prior_sample(upsampled, noise, w) for _, upsampled, noise, w in (pixels, folded)]
    assert torch.equal(torch.pixel_unshuffle(states[0], 4), states[1])
    steps = [
        scheduler.step(x0, 4, state, upsampled, w, 0.5, variance_noise=noise).prev_sample
        for state, (x0, upsampled, noise, w) in zip(states, (pixels, folded), strict=True)
    ]
    assert torch.equal(torch.pixel_unshuffle(steps[0], 4), steps[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(scheduler: UNWScheduler, dtype: torch.dtype) -> None:
    half = [tensor.to(dtype) for tensor in state_tensors(2, 3, 4, 4)]
    full = [tensor.float() for tensor in half]
    t = torch.tensor([1, 3])
    results = []
    for x0, upsampled, noise, weight in (half, full):
        state = scheduler.add_noise(x0, upsampled, noise, t, weight)
        results.append(
            [
                state,
                scheduler.scale_model_input(noise, t),
                scheduler.prior_sample(upsampled, noise, weight),
                scheduler.step(x0, 4, noise, upsampled, weight, 0.5, variance_noise=noise).prev_sample,
            ]
        )
    for in_half, in_full in zip(*results, strict=True):
        assert in_half.dtype == dtype
        assert torch.equal(in_half, in_full.to(dtype))


# Noise


def test_prior_has_the_mean_of_the_upsampled_image(scheduler: UNWScheduler) -> None:
    _, upsampled, noise, weight = state_tensors(2, 3, 4, 4)
    state = scheduler.prior_sample(upsampled, noise, weight)
    torch.testing.assert_close(state, upsampled + 2.5 * 0.99 * weight * noise)
    torch.testing.assert_close(scheduler.prior_sample(upsampled, noise), upsampled + 2.475 * noise)


def test_every_image_gets_its_own_timestep() -> None:
    scheduler = UNWScheduler()
    x0, upsampled, noise, weight = state_tensors(3, 3, 4, 4)
    together = scheduler.add_noise(x0, upsampled, noise, torch.tensor([4, 0, 2]), weight)
    for i, t in enumerate([4, 0, 2]):
        one = slice(i, i + 1)
        alone = scheduler.add_noise(x0[one], upsampled[one], noise[one], t, weight[one])
        torch.testing.assert_close(together[one], alone)


def test_add_noise_without_an_upsampled_image_adds_noise_only() -> None:
    scheduler = UNWScheduler()
    x0, _, noise, weight = state_tensors(2, 3, 4, 4)
    t = torch.tensor([1, 3])
    plain = scheduler.add_noise(x0, noise, t)
    torch.testing.assert_close(plain, x0 + 2.5 * scheduler.sqrt_etas[t].float().view(2, 1, 1, 1) * noise)
    assert torch.equal(plain, scheduler.add_noise(x0, noise=noise, t=t))
    assert torch.equal(plain, scheduler.add_noise(x0, x0, noise, t))
    assert not torch.equal(plain, scheduler.add_noise(x0, noise=noise, t=t, noise_weight=weight))


def test_noise_weight_follows_the_configuration() -> None:
    psi = torch.tensor([0.0, 0.05, 0.1, 0.7])
    torch.testing.assert_close(UNWScheduler().noise_weight(psi), torch.tensor([0.4, 0.7, 1.0, 1.0]))
    half = UNWScheduler(psi_max=0.2, weight_min=0.0).noise_weight(psi)
    torch.testing.assert_close(half, torch.tensor([0.0, 0.25, 0.5, 1.0]))
    assert torch.equal(UNWScheduler(weight_min=1.0).noise_weight(psi), torch.ones(4))


# Timesteps


@pytest.mark.parametrize("total", [2, 4, 5, 15])
def test_any_number_of_steps_keeps_the_noisiest(total: int) -> None:
    scheduler = UNWScheduler(total)
    for count in range(1, total + 1):
        scheduler.set_timesteps(count)
        steps = scheduler.timesteps.tolist()
        assert steps[0] == total - 1
        assert len(steps) == count
        assert steps == sorted(set(steps), reverse=True)
    assert steps == list(range(total - 1, -1, -1))


def test_fewer_steps_are_spread_evenly() -> None:
    scheduler = UNWScheduler(15)
    scheduler.set_timesteps(5)
    assert scheduler.timesteps.tolist() == [14, 11, 8, 5, 2]


def test_a_model_may_be_made_for_fewer_steps() -> None:
    scheduler = UNWScheduler(default_inference_steps=3)
    scheduler.set_timesteps()
    assert scheduler.timesteps.tolist() == [4, 3, 1]
    scheduler.set_timesteps(5)
    assert scheduler.timesteps.tolist() == [4, 3, 2, 1, 0]
    with pytest.raises(ValueError, match="default_inference_steps must be a whole number from 1 to 5"):
        UNWScheduler(default_inference_steps=6)


def test_one_step_returns_the_first_estimate() -> None:
    scheduler = UNWScheduler()
    scheduler.set_timesteps(1)
    x0, upsampled, noise, weight = state_tensors(1, 3, 4, 4)
    state = scheduler.prior_sample(upsampled, noise, weight)
    assert torch.equal(scheduler.step(x0, scheduler.timesteps[0], state, upsampled, weight).prev_sample, x0)


@pytest.mark.parametrize("stochasticity", [0.0, 1.0])
def test_previous_eta_is_that_of_the_previously_selected_step(stochasticity: float) -> None:
    scheduler = UNWScheduler()
    scheduler.set_timesteps(3)
    assert scheduler.timesteps.tolist() == [4, 3, 1]
    first, second = 3, 1
    x0, upsampled, noise, weight = state_tensors(1, 3, 4, 4, dtype=torch.float64)
    state = scheduler.add_noise(x0, upsampled, noise, first, weight)
    fresh = torch.zeros_like(noise)
    previous = scheduler.step(x0, first, state, upsampled, weight, stochasticity, variance_noise=fresh).prev_sample
    eta, eta_prev = scheduler.etas[first], scheduler.etas[second]
    if stochasticity:
        expected = eta_prev / eta * state + (eta - eta_prev) / eta * x0
    else:
        expected = scheduler.add_noise(x0, upsampled, noise, second, weight)
    torch.testing.assert_close(previous, expected)


def test_isotropic_schedule_is_a_configuration() -> None:
    """ResShift's 15 steps, by the formula of its paper: sqrt(eta_t) grows geometrically in (t/14)^0.3."""
    scheduler = UNWScheduler(15, kappa=2.0, min_noise_level=0.04, power=0.3, input_variance=1.0, weight_min=1.0)
    roots = scheduler.sqrt_etas.tolist()
    assert roots[0] == pytest.approx(0.04 / 2.0)
    assert roots[7] == pytest.approx(0.02 * (0.99 / 0.02) ** (0.5**0.3))
    assert roots[-1] == pytest.approx(0.99)
    state = torch.ones(1, 3, 4, 4)
    expected = 1 / (0.99**2 * 2.0**2 + 0.25) ** 0.5
    torch.testing.assert_close(scheduler.scale_model_input(state, 14), expected * state)


# Configuration and errors


def test_configuration_survives_saving(tmp_path: Path) -> None:
    scheduler = UNWScheduler(15, kappa=2.0, power=0.3, weight_min=1.0)
    scheduler.save_pretrained(tmp_path)
    loaded = UNWScheduler.from_pretrained(tmp_path)
    for name in ("num_train_timesteps", "kappa", "power", "weight_min", "input_variance", "psi_max"):
        assert loaded.config[name] == scheduler.config[name]
    assert torch.equal(loaded.etas, scheduler.etas)


@pytest.mark.parametrize("count", [0, -1, 6, 2.5, "3"])
def test_impossible_number_of_steps_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="num_inference_steps must be a whole number from 1 to 5"):
        UNWScheduler().set_timesteps(count)


def test_step_before_set_timesteps_is_refused() -> None:
    image = torch.zeros(1, 3, 4, 4)
    with pytest.raises(ValueError, match="set_timesteps"):
        UNWScheduler().step(image, 4, image)


@pytest.mark.parametrize("t", [2, 5, -1, 4.5, torch.tensor([4, 4])])
def test_step_at_an_unselected_timestep_is_refused(t: int) -> None:
    scheduler = UNWScheduler()
    image = torch.zeros(2, 3, 4, 4)
    scheduler.set_timesteps(1)
    with pytest.raises(ValueError, match="t must be one of the selected timesteps"):
        scheduler.step(image, t, image)


@pytest.mark.parametrize("t", [5, -1, 1.5, torch.tensor([0, 5]), torch.tensor([0, 1, 2])])
def test_impossible_timestep_is_refused(t: int) -> None:
    image = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match="t must be"):
        UNWScheduler().add_noise(image, image, image, t, image)


def test_bad_step_arguments_are_refused(scheduler: UNWScheduler) -> None:
    image = torch.zeros(2, 48, 4, 4)
    with pytest.raises(ValueError, match="stochasticity must be in"):
        scheduler.step(image, 4, image, stochasticity=1.5)
    with pytest.raises(ValueError, match="pixel-unshuffle"):
        scheduler.step(torch.zeros(2, 3, 16, 16), 4, image)
    with pytest.raises(ValueError, match=r"one entry per image \(2\)"):
        scheduler.step(image, 4, image, stochasticity=1.0, generator=[torch.Generator()])
    with pytest.raises(ValueError, match="noise and t are missing"):
        scheduler.add_noise(image, image)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_train_timesteps", 1),
        ("kappa", 0.0),
        ("min_noise_level", -0.2),
        ("etas_end", 1.5),
        ("etas_end", 0.01),
        ("power", 0.0),
        ("psi_max", 0.0),
        ("weight_min", 1.2),
        ("input_variance", -0.1),
    ],
)
def test_impossible_configuration_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        UNWScheduler(**{name: value})
