from __future__ import annotations

from dataclasses import replace

import pytest

from structopt_onnx.report.plan_record import KeepReport, MetricReport
from structopt_onnx.report.record import SampleReport, Size
from structopt_onnx.report.text import render_text


def verdict_of(report) -> str:
    """The lines before the first heading, unwrapped."""
    return " ".join(render_text(report).split("\n\n")[0].splitlines())


def section_of(report, heading: str) -> list[str]:
    blocks = render_text(report).split("\n\n")
    found = [block for block in blocks if block.startswith(heading)]
    assert len(found) == 1, blocks
    return found[0].splitlines()


def test_the_verdict_comes_first_and_is_whole(make):
    assert verdict_of(make.lossy()) == (
        "digits.onnx -> out.onnx: 288,891 -> 141,302 bytes (-51.1%); parameters -77.1%, "
        "MACs -14.9%, nodes 9 -> 10 "
        "error 0.043 of 0.05 allowed, measured on the final part (12 samples that nothing was "
        "fitted on) "
        "faster: x0.820 time [0.800, 0.850], p50 0.1 ms -> 0.082 ms, A/A x1.001 (thread CPU "
        "time, 1 thread, 8 replicates of 30 pairs)"
    )


def test_sizes_and_times_stand_side_by_side(make):
    rows = [line.split() for line in section_of(make.lossy(), "Before and after")]
    assert ["parameters", "71,754", "16,458", "-77.1%"] in rows
    assert ["p50,", "ms", "0.1", "0.082", "-18.0%"] in rows
    assert ["peak", "memory,", "MiB", "56.0", "56.0", "same"] in rows


def test_applied_patches_are_summed_by_pass(make):
    report = make.lossy()
    twice = replace(report, applied=(*report.applied, replace(report.applied[0], number=3)))
    rows = [line.split() for line in section_of(twice, "Applied")]
    assert rows[2][:5] == ["share-initializers", "2", "-128", "0", "0"]
    assert rows[3] == ["factor-matmul", "1", "-55,296", "-55,296", "+1", "fc:", "rank", "8"]


def test_sites_say_what_was_chosen_predicted_measured_and_why(make):
    lines = section_of(make.lossy(), "Lossy sites: 1 of 2 changed for time, error budget 0.05")
    assert " ".join(lines[2].split()) == (
        "fc factor-matmul rank 8 4,096 -> 512 0.0375 rank 8: 0.0401 chosen"
    )
    assert lines[3].split()[:4] == ["head", "factor-matmul", "kept", "4,096"]
    assert lines[3].endswith("over the budget")
    assert " ".join(line.strip() for line in lines[4:]) == (
        "all together: predicted 0.042 (0.042 measured on the probe part; single sites in "
        "quadrature 0.041), measured on the final part 0.043; 2 rounds of planning, 1 evaluation "
        "on the final part"
    )


def test_a_prediction_says_what_an_undone_plan_taught(make):
    plan = make.plan(make.site("fc", "rank 8", "chosen"), predicted=0.063, rescaled=1.5)
    text = " ".join(render_text(replace(make.lossy(), plan=plan)).split())
    assert (
        "predicted 0.063 (0.042 measured on the probe part, x1.50: the root of how far the plan "
        "undone was off;"
    ) in text


def test_a_prediction_says_how_sure_it_is(make):
    plan = make.plan(make.site("fc", "rank 8", "chosen"), spread=0.0061)
    text = " ".join(render_text(replace(make.lossy(), plan=plan)).split())
    assert "predicted 0.042 (0.042 measured on the probe part, standard error 0.0061;" in text


METRIC = MetricReport("agreement", 0.005, 1.0, 1.0, 0.9983, 1.0, (("y", "side of 0.5", 1600),))
KEEP = KeepReport("parameters", 0.5, 0.4951, 0.31)


def test_budgets_of_every_kind_have_their_lines(make):
    plan = make.plan(make.site("fc", "rank 8", "chosen"), budget=None, metric=METRIC, keep=KEEP)
    report = replace(make.lossy(), plan=plan)
    text = verdict_of(report)
    assert (
        "keep parameters=0.5: 49.5% of the original's parameters left, 31.0% of the lossy sites' "
        "metric agreement 0.9983 (original 1), drop 0.0017 of 0.005 allowed, on the final part "
        "(12 samples that nothing was fitted on) "
        "error 0.043 (no error limit was set), measured on the final part too"
    ) in text
    whole = " ".join(render_text(report).split())
    assert "for time, keep parameters=0.5, metric agreement within 0.005 weight" in whole
    assert (
        "decisions counted by agreement: side of 0.5 of y (1,600 of them); the worst output"
        in whole
    )


def test_budgets_that_nothing_met_say_what_was_in_the_way(make):
    nothing = replace(make.empty(), validation=make.validation({"y": 0.0}, 1e-5))
    empty = {"final": None, "metric": MetricReport("agreement", 0.005), "budget": None}
    plan = make.plan(
        make.site("fc", None, "no"), **empty, unmet="metric drop 0.1 is over the limit"
    )
    assert (
        "metric agreement within 0.005 met by changing nothing lossy: metric drop 0.1 is over"
    ) in verdict_of(replace(nothing, plan=plan))
    plan = make.plan(final=None, keep=KeepReport("time", 0.5), unmet="the time limit was reached")
    assert (
        "keep time=0.5, error budget 0.05: nothing lossy kept, the time limit was reached"
    ) in verdict_of(replace(nothing, plan=plan))


def test_refusals_are_grouped_by_code_most_frequent_first(make):
    lines = section_of(make.lossy(), "Left alone")
    assert lines[2].split() == ["weight-rank", "2", "factor-matmul", "att:", "3", "dimensions"]
    assert lines[3].split()[:3] == ["does-not-pay", "1", "share-initializers"]


def test_validation_gives_every_output_its_numbers(make):
    report = replace(make.lossy(), validation=make.validation({"a": 0.01, "b": 0.04}, 0.05))
    lines = section_of(report, "Validation: passed on 36 samples")
    assert [line.split()[0] for line in lines[1:]] == ["output", "b", "a"]
    assert lines[2].split() == ["b", "0.04", "0.04", "0.05", "0.16", "27.3", "97.0%", "1e-07"]


def test_a_failed_validation_can_not_be_overlooked(make):
    broken = make.validation({"logits": 0.2}, 0.05, ("output 'logits': 0.2 is over 0.05",))
    report = replace(make.lossy(), validation=broken)
    assert "VALIDATION FAILED: output 'logits': 0.2 is over 0.05" in verdict_of(report)
    assert "Validation: FAILED on 36 samples: 1 failure" in render_text(report)


def test_nothing_applied_is_said(make):
    checked = make.validation({"y": 0.0}, 1e-5)
    text = verdict_of(replace(make.empty(), validation=checked))
    assert "288,891 -> 288,891 bytes nothing applied: the model is as it was" in text
    assert "written in" not in text
    shrunk = replace(make.empty(), validation=checked, after=Size(make.empty().after.cost, 288_749))
    text = verdict_of(shrunk)
    assert "nothing applied: the model is as it was, written in 142 fewer bytes" in text
    text = verdict_of(replace(shrunk, rolled_back=("exact rewrites: slower",)))
    assert "nothing kept, the model is as it was, written in 142 fewer bytes; rolled back" in text
    assert "speed" not in text


def test_the_larger_of_both_errors_is_told(make):
    checked = make.validation({"y": 0.0}, 1e-5)
    plain = make.validation({"y": 6.8e-08}, 1e-5).exact
    report = replace(make.empty(), validation=replace(checked, exact=plain))
    assert "validated: error 6.8e-08 against the original on 36 samples" in verdict_of(report)


def test_what_was_rolled_back_is_no_secret_of_the_last_section(make):
    checked = make.validation({"y": 0.0}, 1e-5)
    reasons = ("exact rewrites: significantly slower", "lossy rewrites: too large")
    report = replace(make.empty(), validation=checked, rolled_back=reasons[:1])
    text = verdict_of(report)
    assert (
        "nothing kept, the model is as it was; rolled back: exact rewrites: significantly slower"
    ) in text
    assert "nothing applied" not in text
    some = replace(make.lossy(), rolled_back=reasons)
    assert (
        "nodes 9 -> 10 rolled back: exact rewrites: significantly slower (and 1 more, below)"
    ) in verdict_of(some)


def test_warnings_come_before_the_tables_and_notes_after(make):
    report = replace(make.lossy(), warnings=("few samples for 3 sites",), notes=("it took long",))
    text = render_text(report)
    assert "\nnote: few samples for 3 sites\n\nBefore and after" in text
    assert "it took long" not in verdict_of(report)


def test_speed_that_needs_more_time_names_the_option(make):
    short = replace(
        make.comparison(verdict="not measured", reason="8 replicates need about 60 s"),
        ratio=None,
        needed_seconds=75,
    )
    report = replace(make.lossy(), comparison=short)
    assert verdict_of(report).endswith(
        "not measured: needs about 75 s, --benchmark-seconds 75 allows it; p50 0.1 ms -> 0.082 ms"
    )
    assert "not measured: 8 replicates need about 60 s" in render_text(report)


def test_models_that_could_not_be_run_together_have_no_number_of_inputs(make):
    broken = make.validation({}, 0.05, ("input 'x' is missing", "input 'z' is new"))
    unrun = replace(broken, shipped=replace(broken.shipped, samples=0))
    report = replace(make.lossy(), validation=unrun)
    assert "\nValidation: FAILED without a run: 2 failures\n" in render_text(report)


def test_without_output_nothing_is_claimed_to_be_written(make):
    text = render_text(replace(make.lossy(), output=None))
    assert text.startswith("digits.onnx: 288,891 -> 141,302 bytes")
    assert "\nApplied\n" in text


def explanation(make):
    nothing = replace(make.site("head", None, "too small"), options=())
    sites = make.site("fc", None, "not probed"), nothing
    return replace(
        make.lossy(),
        output=None,
        validation=None,
        comparison=None,
        plan=make.plan(*sites, final=None, budget=None, rounds=0, final_evaluations=0),
    )


def test_an_explanation_claims_nothing_that_was_not_done(make):
    text = render_text(explanation(make))
    assert (
        "nothing was written; 2 exact rewrites would apply; 1 lossy site on offer, not probed\n"
    ) in text
    assert "\nWould apply\n" in text
    for word in ("\nApplied\n", "speed", "budget", "planning", "final part"):
        assert word not in text


def test_an_explanation_lists_what_each_site_offers(make):
    lines = section_of(explanation(make), "Lossy sites: 1 of 2 on offer, if --max-error allows")
    assert " ".join(lines[2].split()) == (
        "fc 2: rank 8 ... rank 16 4,096 -> 512 ... 1,024 0.00354 ... 0.0025 by output covariance"
    )
    assert " ".join(lines[3].split()) == "head none pays 4,096 - too small"


def test_an_explanation_for_a_budget_names_it_and_what_is_on_offer(make):
    report = replace(explanation(make), applied=())
    report = replace(report, plan=replace(report.plan, budget=0.05))
    text = render_text(report)
    assert "nothing was written; no exact rewrite would apply; 1 lossy site on offer" in text
    assert "\nLossy sites: 1 of 2 on offer, for error budget 0.05\n" in text
    assert "if --max-error allows" not in text


def test_an_explanation_of_a_model_with_nothing_to_do(make):
    nothing = replace(explanation(make), applied=(), plan=make.plan(final=None))
    text = render_text(nothing)
    assert "nothing was written; no exact rewrite would apply\n" in text
    assert "Lossy sites: none" in text


def test_an_unused_budget_says_by_how_much_it_was_missed(make):
    missed = make.plan(
        make.site("fc", None, "over the budget"), final=None, nearest_miss=("fc: rank 16", 0.081)
    )
    report = replace(make.empty(), plan=missed, validation=make.validation({"y": 1e-7}, 1e-5))
    text = verdict_of(report)
    assert (
        "error budget 0.05 met by changing nothing lossy; nearest miss: fc: rank 16 at error 0.081"
        in text
    )
    assert "validated: error 1e-07 against the original on 36 samples" in text


def test_a_budget_without_any_site_is_no_success(make):
    checked = make.validation({"y": 0.0}, 1e-5)
    report = replace(make.empty(), plan=make.plan(final=None), validation=checked)
    assert "no site has an option that could pay" in render_text(report)


def test_a_plan_rolled_back_is_not_reported_as_done(make):
    report = make.lossy()
    report = replace(
        report, applied=report.applied[:1], rolled_back=("lossy rewrites: significantly slower",)
    )
    text = render_text(report)
    assert "error budget 0.05 not used: the lossy rewrites were rolled back" in verdict_of(report)
    assert "of 0.05 allowed" not in text
    assert "Lossy sites: 1 of 2 planned, then rolled back, for time" in text
    assert "Rolled back\n  - lossy rewrites: significantly slower\n" in text


def test_several_looks_at_the_final_part_and_undone_options_are_said(make):
    looks = make.plan(
        make.site("fc", "rank 8", "chosen"), final_evaluations=3, undone=("head: rank 8",)
    )
    report = replace(make.lossy(), plan=looks)
    assert "nothing was fitted on, looked at 3 times)" in verdict_of(report)
    assert "undone on the final part: head: rank 8" in render_text(report)


BLOCKS = SampleReport("samples.npz", False, 60, 36, 12, 12, by_source=False)
MADE_UP = SampleReport("synthetic", True, 60, 36, 12, 12, by_source=False)


@pytest.mark.parametrize(
    ("samples", "said", "not_said"),
    [
        (BLOCKS, "errors may be understated: the parts are contiguous blocks", "synthetic"),
        (MADE_UP, "errors were measured on synthetic inputs", "understated"),
    ],
)
def test_what_the_errors_do_not_show_is_said(make, samples, said, not_said):
    text = verdict_of(replace(make.lossy(), samples=samples))
    assert said in text
    assert not_said not in text


def test_errors_by_source_need_no_caveat(make):
    assert "note:" not in verdict_of(make.lossy())


def test_an_exact_run_on_made_up_inputs_says_so_without_alarm(make):
    report = replace(
        make.empty(),
        samples=SampleReport("synthetic", True, 4),
        validation=make.validation({"y": 0.0}, 1e-5),
    )
    assert "note: validated on 36 synthetic inputs: no data were given" in verdict_of(report)
    assert "different" not in verdict_of(report)


def test_figures_of_made_up_inputs_say_their_sizes(make):
    shapes = tuple(f"x{n} float32[1,{n}]" for n in range(6))
    made_up = SampleReport("synthetic", True, 8, shapes=shapes)
    report = replace(make.lossy(), samples=made_up)
    listed = "x0 float32[1,0], x1 float32[1,1], x2 float32[1,2], x3 float32[1,3] and 2 more inputs"
    assert (
        f"note: speed and MACs are of made-up inputs, {listed}; give --calibration for real ones"
    ) in verdict_of(report)
    assert f"inputs: 8 made up: {listed}; give --calibration for real ones" in " ".join(
        line.strip() for line in section_of(report, "Run")
    )
    assert "speed and MACs" not in verdict_of(replace(report, comparison=None))


def test_inputs_of_a_user_are_counted_by_part(make):
    assert section_of(make.lossy(), "Run")[1] == (
        "  inputs: 60 from samples.npz (36 to fit, 12 to probe, 12 final)"
    )


def test_speed_that_was_not_measured_is_not_hidden(make):
    report = replace(make.lossy(), comparison=None)
    assert verdict_of(report).endswith("speed not measured")


def test_no_difference_keeps_its_reason_and_noise_is_named(make):
    quiet = make.comparison(0.995, "no difference shown", "the interval includes 1")
    text = render_text(replace(make.lossy(), comparison=quiet), 200)
    assert "no difference shown: the interval includes 1" in text
    assert "the machine was busy, so these are noisy" in text


def test_the_estimate_is_called_one(make):
    report = replace(make.empty(), estimate=make.estimate(), estimate_basis="weights")
    lines = section_of(report, "What --max-error could buy: an estimate")
    assert lines[2].split() == ["0.01", "60,000", "(-16.4%)", "350,000", "(-5.6%)"]
    assert "nothing was probed" in lines[-1]


def test_an_estimate_of_nothing_is_short(make):
    nothing = replace(make.estimate()[1], parameters=71754, macs=370944)
    report = replace(make.empty(), estimate=(nothing,))
    lines = section_of(report, "What --max-error could buy")
    assert lines[1] == "  nothing, up to an error of 0.1 at each site"
    assert lines[2].startswith("  this rests on the weights alone: calibration data usually allow")
    known = replace(report, estimate_basis="calibration")
    assert section_of(known, "What --max-error could buy")[1:] == lines[1:2]


def test_long_lists_are_cut_and_the_cut_is_said(make):
    sites = [make.site(f"w{i}", None, "over the budget") for i in range(40)]
    refused = tuple(make.refused(f"code-{i}", f"node{i}") for i in range(40))
    report = replace(make.lossy(), plan=make.plan(*sites, final=None), refused=refused)
    text = render_text(report)
    assert "and 24 sites more" in text
    assert "and 28 more reasons" in text


HOSTILE = "\x1b[2Jevil\nname [red]x[/red] :smile: \u202e\ud800" + "y" * 200


def test_names_from_a_model_can_not_steer_the_terminal(make):
    report = make.lossy()
    applied = replace(report.applied[1], title=HOSTILE, node=HOSTILE)
    report = replace(
        report,
        source=HOSTILE,
        applied=(applied,),
        refused=(make.refused("weight-rank", HOSTILE),),
        plan=make.plan(make.site(HOSTILE, "rank 8", HOSTILE)),
        notes=(HOSTILE,),
        validation=make.validation({HOSTILE: 0.01}, 0.05, (HOSTILE,)),
    )
    text = render_text(report)
    assert all(line.isprintable() for line in text.splitlines())
    assert "[red]x[/red] :smile:" in text
    assert "\\x1b[2Jevil\\nname" in text


@pytest.mark.parametrize("width", [40, 100])
def test_text_is_plain_and_fits(make, width):
    text = render_text(make.lossy(), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert all(line == line.rstrip() for line in text.splitlines())
    assert text.isascii()
    assert "\x1b" not in text


def test_the_environment_does_not_change_the_text(make, monkeypatch):
    before = render_text(make.lossy())
    for variable, value in (("FORCE_COLOR", "1"), ("COLUMNS", "20"), ("TERM", "dumb")):
        monkeypatch.setenv(variable, value)
    assert render_text(make.lossy()) == before


def test_a_long_pipeline_breaks_between_its_passes(make):
    report = replace(make.empty(), pipeline=",".join(f"some-pass-{n}{{a=1,b=2}}" for n in range(9)))
    lines = section_of(report, "Run")
    assert lines[2].startswith("  pipeline: some-pass-0{a=1, b=2}, some-pass-1{a=1, ")
    assert all(line.endswith(("samples.npz", "Run", ",", "}")) for line in lines)


def test_a_whole_report_takes_about_a_screen(make):
    assert len(render_text(make.lossy()).splitlines()) <= 50
