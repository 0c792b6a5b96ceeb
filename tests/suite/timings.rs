//! `--timings`: the page's figures beside what the image holds, hostile text in it, and how a browser shows it.

use std::{collections::BTreeMap, fs, process::Command};

use serde_json::Value;

use crate::harness::{Image, Kind, Node, Project, merged, need, output_of};

const PAGE: &str = "timings.html";

/// The values of the page, as a browser takes them: to the first end of the element.
fn values(project: &Project) -> Value {
    let page = fs::read_to_string(project.path(PAGE)).unwrap();
    let (_, after) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(after.split_once("</script>").unwrap().0).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What a layer adds, changes and deletes: by comparing the trees before and after it.
fn compared(image: &Image, layer: usize) -> [usize; 3] {
    let tree = |layers: usize| merged(image.layers.iter().take(layers).map(|layer| &layer.rows));
    let (before, after): (BTreeMap<String, Node>, BTreeMap<String, Node>) = (tree(layer), tree(layer + 1));
    let timeless = |node: &Node| Node { mtime: 0, ..node.clone() };
    let is_same = |path: &String, node: &Node| match before.get(path) {
        Some(had) if node.kind == Kind::Dir => timeless(had) == timeless(node),
        Some(had) => had == node,
        None => false,
    };
    let added = after.keys().filter(|path| !before.contains_key(*path)).count();
    let changed = after.iter().filter(|(path, node)| before.contains_key(*path) && !is_same(path, node)).count();
    [added, changed, before.keys().filter(|path| !after.contains_key(*path)).count()]
}

fn contents(image: &Image, layer: usize) -> u64 {
    let size = |node: &Node| if let (Kind::File { size, .. }, None) = (&node.kind, &node.link) { *size } else { 0 };
    image.layers[layer].rows.iter().filter_map(|(_, node)| node.as_ref()).map(size).sum()
}

/// A build with files that are added, changed, deleted, linked and wasted.
fn layered() -> (Project, String) {
    let project = Project::with_busybox();
    for (name, size) in [("src/a", 1000), ("src/b", 2000), ("src/d/c", 4000), ("src/d/e", 8000)] {
        let _path = project.file(name, "x".repeat(size));
    }
    let text = "FROM busybox AS first\nCOPY src /src\nENV A=1\n\
        RUN echo 12345 > /src/a && rm /src/b && head -c 50000 /dev/zero > /new && ln /new /other\n\
        RUN rm -r /src/d && chmod 700 /src && mv /new /moved\n";
    project.dockerfile(text);
    (project, text.to_owned())
}

#[test]
fn the_figures_are_those_of_the_image() {
    let (project, text) = layered();
    let _first = project.build(&[]).good();
    // The last one runs, the others are cached.
    project.dockerfile(&format!("{text}RUN sleep 0.3; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo end > /end\nCMD [\"x\"]\n"));
    let image = project.image(&["--timings", PAGE]);
    let all = values(&project);
    let steps = all["steps"].as_array().unwrap();
    let how: Vec<&str> = steps.iter().map(|step| step["how"].as_str().unwrap()).collect();
    assert_eq!(how, ["cached", "noted", "cached", "cached", "done", "noted"]);
    assert_eq!(all["image"], image.digest);
    let makers = steps.iter().filter(|step| !step["layer"].is_null());
    for (layer, step) in (1..).zip(makers) {
        assert_eq!(step["layer"], image.layers[layer].diff_id);
        let counted = ["added", "changed", "deleted"].map(|key| usize::try_from(number(&step[key])).unwrap());
        assert_eq!(counted, compared(&image, layer), "{step}");
        assert_eq!(number(&step["raw"]), contents(&image, layer), "{step}");
        assert_eq!(step["compressed"], image.manifest["layers"][layer]["size"]);
    }
    let wasted: Vec<&Value> = steps.iter().map(|step| &step["wasted"]).filter(|wasted| !wasted.is_null()).collect();
    // a, b, c, e; then what has been moved has another name still.
    assert_eq!(wasted.iter().map(|wasted| number(wasted)).collect::<Vec<_>>(), [15_000, 0, 0, 0]);
    assert_eq!(number(&all["total"]["raw"]), (0..image.layers.len()).map(|layer| contents(&image, layer)).sum::<u64>());
    assert_eq!(number(&all["total"]["layers"]), 5);
    assert!(steps.iter().filter(|step| step["how"] == "noted").all(|step| step["raw"].is_null() && step["added"].is_null()));
}

#[test]
fn a_step_has_its_times_its_processors_and_its_memory() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN sleep 0.3; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo end > /end\nRUN sleep 0.1\n");
    let _built = project.build(&["--timings", PAGE, "-o", "type=oci,tar=false,dest=out"]).good().says(&["timings: timings.html\n"]);
    let all = values(&project);
    let [first, second] = &all["steps"].as_array().unwrap()[..] else { panic!("{all}") };
    let spell = |step: &Value, at: &str| {
        let spells = step["spells"].as_array().unwrap();
        let found = spells.iter().find(|spell| spell["at"] == at).unwrap_or_else(|| panic!("no {at} in {step}"));
        (number(&found["from"]), number(&found["to"]))
    };
    for (step, least) in [(first, 300_000), (second, 100_000)] {
        let (from, to) = spell(step, "running");
        assert!(to - from >= least && number(&step["from"]) <= from && to <= number(&step["to"]), "{step}");
        assert_eq!(number(&step["wall"]), number(&step["to"]) - number(&step["from"]));
        let (from, to) = spell(step, "compressing");
        assert!(from < to && to <= number(&all["wall"]) && from >= number(&step["from"]), "{step}");
        // A shell has some hundreds of KiB, and sleeping needs no processor.
        assert!((100 << 10..1 << 30).contains(&number(&step["peak"])), "{step}");
        assert!(number(&step["cpu"]) > 0, "{step}");
    }
    assert!(number(&first["cpu"]) > number(&second["cpu"]), "{all}");
    assert!(number(&first["to"]) <= number(&second["from"]));
    let written = all["asides"].as_array().unwrap().iter().find(|aside| aside["what"] == "writing an OCI layout").unwrap();
    assert!(number(&second["to"]) <= number(&written["from"]) && number(&written["to"]) <= number(&all["wall"]), "{all}");
    assert!(first["why"].as_array().is_some_and(|why| !why.is_empty()), "{first}");
}

#[test]
fn a_step_that_could_go_on_and_may_not_is_waiting() {
    let project = Project::with_busybox();
    // The base is extracted once, and who waits for that lends its slot.
    project.dockerfile("FROM busybox\nRUN true\n");
    let _warm = project.build(&[]).good();
    let stages = ["0", "1", "2"].map(|stage| format!("FROM busybox AS s{stage}\nRUN sleep 1; echo {stage} > /{stage}\n")).concat();
    project.dockerfile(&format!("{stages}FROM scratch\nCOPY --from=s0 /0 /\nCOPY --from=s1 /1 /\nCOPY --from=s2 /2 /\n"));
    let _built = project.build(&["--timings", PAGE, "--max-steps", "2"]).good();
    // Two run at once; the third has a slot when one of them has ended.
    waits_for_another(&values(&project)["steps"].as_array().unwrap()[..3]);
}

#[test]
fn a_step_whose_cache_another_one_has_is_waiting() {
    let project = Project::with_busybox();
    let cache = "--mount=type=cache,sharing=locked,target=/cache";
    let stages = ["0", "1"].map(|stage| format!("FROM busybox AS s{stage}\nRUN {cache} sleep 1; echo {stage} > /{stage}\n")).concat();
    project.dockerfile(&format!("{stages}FROM scratch\nCOPY --from=s0 /0 /\nCOPY --from=s1 /1 /\n"));
    let _built = project.build(&["--timings", PAGE]).good();
    waits_for_another(&values(&project)["steps"].as_array().unwrap()[..2]);
}

/// The last of these steps to run began when another one had ended, and waited until then. No duration is asked for: a machine is as slow
/// as it likes.
fn waits_for_another(steps: &[Value]) {
    let spells = |step: &Value, at: &str| {
        let spells = step["spells"].as_array().unwrap().iter().filter(|spell| spell["at"] == at);
        spells.map(|spell| (number(&spell["from"]), number(&spell["to"]))).collect::<Vec<_>>()
    };
    let last = steps.iter().max_by_key(|step| spells(step, "running")[0].0).unwrap();
    let ended = steps.iter().map(|step| spells(step, "running")[0].1).min().unwrap();
    assert!(spells(last, "running")[0].0 >= ended, "{steps:?}");
    assert!(spells(last, "waiting").iter().any(|(from, to)| *from < ended && ended <= *to), "{steps:?}");
}

#[test]
fn a_build_that_fails_has_a_page_of_what_there_is() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN echo 1 > /1\nRUN exit 7\nRUN never\n");
    let _failed = project.build(&["--timings", PAGE]).ends_with(3).says(&["timings: timings.html\n"]);
    let all = values(&project);
    let how: Vec<&str> = all["steps"].as_array().unwrap().iter().map(|step| step["how"].as_str().unwrap()).collect();
    assert_eq!(how, ["done", "failed", "skipped"]);
    assert!(all["error"].as_str().unwrap().contains("exit code: 7") && all["image"].is_null() && all["total"].is_null());
    assert_eq!(all["steps"][0]["raw"], 2);
    assert!(all["steps"][0]["wasted"].is_null() && all["steps"][2]["wall"].is_null() && all["steps"][1]["peak"].is_u64());
    project.dockerfile("FROM busybox\nRUM true\n");
    let _failed = project.build(&["--timings", PAGE]).ends_with(1);
    let all = values(&project);
    assert!(all["steps"].as_array().unwrap().is_empty() && all["error"].as_str().unwrap().contains("RUM"), "{all}");
    let _refused = project.build(&["--timings", PAGE, "--check"]).ends_with(2).says(&["--timings"]);
}

#[test]
fn a_browser_shows_a_bar_and_a_row_for_each_step_and_takes_no_text_for_markup() {
    let Some(chromium) = need("chromium") else { return };
    let project = Project::with_busybox();
    let hostile = "</script><img src=x onerror=document.title='owned'><!--";
    project.dockerfile(&format!("FROM busybox\nLABEL a=\"{hostile}\"\nRUN echo \"{hostile}\" > /1\nRUN <<END\necho 2 > /2\nEND\n"));
    let _built = project.build(&["--timings", PAGE, "-o", "type=oci,tar=false,dest=out"]).good();
    let page = fs::read_to_string(project.path(PAGE)).unwrap();
    assert!(!page.contains("<img") && page.matches("</script>").count() == 2);
    let mut browser = Command::new(chromium);
    let profile = format!("--user-data-dir={}", project.path("browser").display());
    let _flags = browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom", &profile]);
    let _home = browser.env("HOME", project.path("home")).arg(format!("file://{}", project.path(PAGE).display()));
    let shown = output_of(&mut browser).good().out();
    assert!(!shown.contains("<img") && shown.contains("<title>Build timings</title>"), "{shown}");
    for step in 0..3 {
        for mark in [format!("id=\"bar-{step}\""), format!("id=\"row-{step}\"")] {
            assert_eq!(shown.matches(&mark).count(), 1, "{mark}\n{shown}");
        }
    }
    // In the chart, the table and the bar's own words, as text.
    assert!(shown.matches("&lt;/script&gt;&lt;img src=x").count() >= 4, "{shown}");
    for bar in ["bar working", "bar running", "bar compressing", "bar moving"] {
        assert!(shown.contains(&format!("class=\"{bar}\"")), "{bar}\n{shown}");
    }
    assert!(shown.contains("aria-label=\"stage-0 2 of 3, done: RUN echo"), "{shown}");
}
