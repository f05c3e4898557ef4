//! Whether the runner finds what it is for, and whether what it says of itself is true.

use std::{collections::BTreeSet, path::Path, time::Duration};

use conformance::runner::{Behaviour, Expected, Feature, Options, Report, Verdict, all, run};

#[test]
fn there_are_many_behaviours_and_each_has_a_name_of_its_own() {
    let names: BTreeSet<String> = all().map(|behaviour| behaviour.full_name()).collect();
    assert_eq!(names.len(), all().count());
    assert!(names.len() >= 150, "{}", names.len());
    for behaviour in all() {
        assert!(behaviour.sentence.ends_with('.') && behaviour.sentence.len() > 20, "{behaviour:?}");
    }
}

#[test]
fn each_behaviour_tests_sentences_that_the_specification_has() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol-spec");
    let mut text = String::new();
    for page in std::fs::read_dir(pages).unwrap() {
        text += &std::fs::read_to_string(page.unwrap().path()).unwrap();
    }
    for behaviour in all() {
        assert!(!behaviour.must.is_empty(), "{behaviour:?} tests nothing");
        for id in behaviour.must {
            assert!(text.contains(&format!("[{id}]")), "{} names {id}", behaviour.full_name());
        }
    }
}

#[test]
fn the_document_of_the_shims_protocol_names_every_feature() {
    let text = include_str!("../SHIM.md");
    for feature in Feature::ALL {
        assert!(text.contains(&format!("| `{}` |", feature.name())), "{}", feature.name());
    }
}

#[test]
fn an_expected_failure_needs_a_behaviour_and_a_reason() {
    let good = Expected::parse("# why\n\nmux/batch: it has no batches\n").unwrap();
    assert_eq!((good.len(), good.reason("mux/batch")), (1, Some("it has no batches")));
    for bad in ["mux/batch", "mux/batch:", "mux/none: why", "mux/batch: a\nmux/batch: b"] {
        assert!(Expected::parse(bad).is_err(), "{bad}");
    }
}

/// Some behaviours of each area, so that the test is over soon: liars make the runner wait.
fn some() -> Vec<Behaviour> {
    all().enumerate().filter(|(n, _)| n % 4 == 0).map(|(_, behaviour)| behaviour).collect()
}

async fn of(command: String, behaviours: Vec<Behaviour>) -> Report {
    let mut options = Options::new(command);
    options.shim.patience = Duration::from_millis(250);
    options.limit = Duration::from_secs(5);
    options.jobs = 8;
    run(behaviours, &options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn shims_that_lie_fail_most_behaviours() {
    for manner in ["accepts", "rejects", "deaf"] {
        let report = of(format!("{} {manner}", env!("CARGO_BIN_EXE_lying_shim")), some()).await;
        let passed: Vec<String> = report
            .outcomes
            .iter()
            .filter(|outcome| outcome.verdict == Verdict::Passed)
            .map(|outcome| outcome.behaviour.full_name())
            .collect();
        // They are good peers up to the secret stream, and who rejects all rejects also what must be.
        assert!(report.failed() * 2 > report.outcomes.len(), "{manner}: {passed:?} pass");
        let is_deep = |name: &&String| {
            !["frames/", "noise/", "stream/", "mux/"].iter().any(|area| name.starts_with(area))
        };
        let deep = passed.iter().filter(is_deep).count();
        assert!(deep * 4 < report.outcomes.len(), "{manner}: {passed:?} pass");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shims_that_crash_hang_or_talk_nonsense_fail_and_the_run_ends() {
    let behaviours = || all().filter(|behaviour| behaviour.area == "frames").take(3).collect::<Vec<_>>();
    let greeting = "printf 'ok 1 bad party write read\\n'";
    for (what, script) in [
        ("crashes", format!("sh -c \"{greeting}; read line; read line; exit 3\"")),
        ("hangs", format!("sh -c \"{greeting}; exec sleep 60\"")),
        ("talks nonsense", format!("sh -c \"{greeting}; while read line; do echo what; done\"")),
        (
            "says nothing but errors",
            format!("sh -c \"{greeting}; while read line; do echo error other no; done\""),
        ),
    ] {
        let report = of(script, behaviours()).await;
        assert_eq!(
            (report.failed(), report.outcomes.len()),
            (3, 3),
            "one that {what}: {}",
            report.describe()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_is_expected_and_does_not_come_fails_the_run() {
    let behaviours: Vec<Behaviour> =
        all().filter(|behaviour| behaviour.full_name() == "frames/empty").collect();
    let mut options = Options::new(env!("CARGO_BIN_EXE_party_shim"));
    options.expected = Expected::parse("frames/empty: it doesn't end").unwrap();
    let report = run(behaviours, &options).await.unwrap();
    assert_eq!((report.failed(), report.outcomes[0].verdict.clone()), (1, Verdict::UnexpectedPass));
}
