//! `millwright evaluate`.

use crate::run::{ai4i, data, failure, file, json, millwright};
use serde_json::{Value, json};

/// rows, positives, tp, fp, fn
fn counts(report: &Value) -> Vec<u64> {
    ["rows", "positives", "tp", "fp", "fn"].iter().map(|key| report[key].as_u64().unwrap()).collect()
}

fn modes(report: &Value) -> Vec<String> {
    let modes = report["modes"].as_object().unwrap().iter();
    modes.map(|(name, mode)| format!("{name} {}/{}", mode["found"], mode["label"])).collect()
}

/// The figures of the shipped sample; its labels were made by other arithmetic than the product's.
fn check_mill(path: &str) -> String {
    let (report, said) = json(["evaluate", "--readings", path]);
    assert_eq!(counts(&report), [798, 25, 21, 0, 4]);
    assert_eq!(modes(&report), ["HDF 4/4", "OSF 8/8", "PWF 12/12", "TWF 2/2"]);
    said
}

#[test]
fn the_sample_is_judged_by_the_laws() {
    let (report, said) = json(["evaluate", "--class", "mill", "--readings", &data("mill.csv"), "--detector", "laws"]);
    assert!(said.contains("ignored columns: UDI, Product ID, RNF"), "{said}");
    check_mill(&data("mill.csv"));
    let near = |key: &str, value: f64| assert!((report[key].as_f64().unwrap() - value).abs() < 1e-12, "{report}");
    near("precision", 1.0);
    near("recall", 21.0 / 25.0);
    near("f1", 42.0 / 46.0);
    near("recall_at_1pct_far", 21.0 / 25.0);
    near("false_alarms_per_machine_week", 0.0);
    assert_eq!(report["threshold"], Value::Null);
    assert!(report["pr_auc"].as_f64().unwrap() > 0.84);
}

#[test]
fn the_form_of_the_file_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(data("mill.csv")).unwrap();
    let published = format!("\u{feff}{}", text.replace("UDI", "UID").replace('\n', "\r\n"));
    check_mill(&file(&folder, "published.csv", &published));
    let reversed = text.lines().map(|line| line.split(',').rev().collect::<Vec<_>>().join(",") + "\n");
    check_mill(&file(&folder, "reversed.csv", &reversed.collect::<String>()));
    check_mill(&file(&folder, "semicolons.csv", &text.replace(',', ";")));
    check_mill(&file(&folder, "commas.csv", &text.replace(',', ";").replace('.', ",")));
    let quoted = text.lines().map(|line| format!("\"{}\"\n", line.replace(',', "\",\"")));
    check_mill(&file(&folder, "quoted.csv", &quoted.collect::<String>()));
    let ids = text.replacen("Rotational speed [rpm]", " RPM ", 1).replacen("Torque [Nm]", "torque_nm", 1);
    check_mill(&file(&folder, "ids.csv", &ids));
}

#[test]
fn the_real_data_set_gives_287_of_339() {
    let Some(path) = ai4i() else { return };
    let text = std::fs::read_to_string(&path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let published = format!("\u{feff}{}", text.replace("UDI", "UID").replace('\n', "\r\n"));
    for path in [path.to_str().unwrap(), &file(&folder, "published.csv", &published)] {
        let (report, _) = json(["evaluate", "--readings", path, "--labels", "Machine failure"]);
        assert_eq!(counts(&report), [10_000, 339, 287, 0, 52]);
        assert_eq!(modes(&report), ["HDF 115/115", "OSF 98/98", "PWF 95/95", "TWF 45/46"]);
    }
    let table = millwright(["evaluate", "--readings", path.to_str().unwrap()]).stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("287 of 339") && table.contains("115 of 115"), "{table}");
}

#[test]
fn without_labels_rows_are_judged_and_figures_are_null() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(data("mill.csv")).unwrap();
    let blind = text.lines().map(|line| line.split(',').take(8).collect::<Vec<_>>().join(",") + "\n");
    let (report, said) = json(["evaluate", "--readings", &file(&folder, "blind.csv", &blind.collect::<String>())]);
    assert!(said.contains("no column `Machine failure`"), "{said}");
    for key in [
        "positives",
        "tp",
        "fp",
        "fn",
        "precision",
        "recall",
        "f1",
        "pr_auc",
        "recall_at_1pct_far",
        "false_alarms_per_machine_week",
        "threshold",
    ] {
        assert_eq!(report[key], Value::Null, "{key}");
    }
    assert_eq!((&report["rows"], &report["anomalies"]), (&json!(798), &json!(21)));
    assert_eq!(report["modes"]["HDF"], json!({ "label": null, "found": 4 }));
}

#[test]
fn scores_are_written_for_every_scored_row() {
    let folder = tempfile::tempdir().unwrap();
    let scores = folder.path().join("scores.csv");
    let scores = scores.to_str().unwrap();
    json(["evaluate", "--readings", &data("mill.csv"), "--scores", scores]);
    let text = std::fs::read_to_string(scores).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("row,timestamp,machine_id,score,anomaly,failure_type"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 798);
    for (nth, row) in rows.iter().enumerate() {
        assert_eq!((row[0], row[2]), (&*nth.to_string(), "mill"));
        // A machine that stands is not judged, so its rows have no score.
        assert_eq!(row[4] == "1", row[3].parse::<f64>().is_ok_and(|score| score > 0.0));
        assert_eq!(row[4] == "1", ["HeatDissipation", "PowerFailure", "Overstrain"].contains(&row[5]));
    }
    assert_eq!(rows[61][1], "2020-01-01T00:01:01Z");
    assert_eq!(rows.iter().filter(|row| row[4] == "1").count(), 21);

    let training = ["evaluate", "--readings", &data("mill.csv"), "--detector", "mahalanobis", "--train-rows", "700"];
    let (report, _) = json(training.into_iter().chain(["--scores", scores]));
    assert_eq!(report["rows"], json!(98));
    let text = std::fs::read_to_string(scores).unwrap();
    assert_eq!(text.lines().count(), 99);
    assert!(text.lines().nth(1).unwrap().starts_with("700,"), "{text}");
}

/// A class that is not built in, from a file with semicolons, decimal commas, two machines and local times.
#[test]
fn a_class_of_ones_own_works_by_its_file_alone() {
    let (class, readings) = (data("compressor.toml"), data("compressor.csv"));
    let given = ["evaluate", "--class", &class, "--readings", &readings];
    let (report, _) = json(given);
    assert_eq!(counts(&report), [800, 50, 30, 0, 20]);
    assert_eq!(modes(&report), ["hot 22/22", "overloaded 8/8", "service 190/null", "wet 0/null"]);

    // The leaking valve breaks no law.
    let (report, _) = json(given.into_iter().chain(["--detector", "mahalanobis", "--train-rows", "600"]));
    assert_eq!((&report["rows"], &report["positives"], &report["tp"]), (&json!(200), &json!(50), &json!(50)));
    assert!(report["pr_auc"].as_f64().unwrap() > 0.95, "{report}");
    assert_eq!(report["modes"]["service"], json!({ "label": null, "found": null }));
    let threshold = report["threshold"].as_f64().unwrap();
    let until = ["--detector", "mahalanobis", "--train-until", "2025-03-01 06:50:00"];
    assert_eq!(json(given.into_iter().chain(until)).0["threshold"].as_f64(), Some(threshold));
    // Seoul is nine hours ahead, in the file and in the argument alike.
    assert_eq!(
        json(given.into_iter().chain(until).chain(["--time-zone", "Asia/Seoul"])).0["threshold"].as_f64(),
        Some(threshold)
    );

    let trained = given.into_iter().chain(["--detector", "mahalanobis", "--train", &readings]);
    let (report, _) = json(trained.chain(["--threshold", "1e9"]));
    assert_eq!((&report["rows"], &report["tp"], &report["threshold"]), (&json!(800), &json!(0), &json!(1e9)));
    let many = ["--detector", "mahalanobis", "--false-alarm-rate", "0.5"];
    let flagged = json(given.into_iter().chain(many)).0["anomalies"].as_u64().unwrap();
    assert!((385..=400).contains(&flagged), "{flagged}");
}

#[test]
fn json_lines_are_judged_too() {
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("mill.jsonl");
    let lines = lines.to_str().unwrap();
    json(["replay", &data("mill.csv"), "--to", lines]);
    let (report, _) = json(["evaluate", "--readings", lines]);
    assert_eq!((&report["rows"], &report["anomalies"]), (&json!(798), &json!(21)));
}

#[test]
fn refused_rows_are_told_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(data("mill.csv")).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut cells: Vec<&str> = lines[2].split(',').collect();
    cells[6] = "n/a";
    lines[2] = cells.join(",");
    let path = file(&folder, "spoilt.csv", &lines.join("\n"));
    let (report, said) = json(["evaluate", "--readings", &path]);
    assert_eq!((&report["rows"], &report["refused"]), (&json!(797), &json!(1)));
    assert!(said.contains("spoilt.csv:3:") && said.contains("torque_nm is n/a, a number is expected"), "{said}");
}

#[test]
fn a_slip_in_a_column_is_told_with_what_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(data("mill.csv")).unwrap().replacen(
        "Rotational speed [rpm]",
        "Rotational sped [rpm]",
        1,
    );
    let path = file(&folder, "slip.csv", &text);
    let (code, said) = failure(["evaluate", "--readings", &path]);
    assert_eq!(code, 5);
    assert!(said.contains("slip.csv:1:1: no column for rpm or Rotational speed [rpm]"), "{said}");
    assert!(said.contains("`Rotational sped [rpm]`: did you mean `Rotational speed [rpm]`?"), "{said}");

    let (code, said) = failure(["evaluate", "--readings", &data("mill.csv"), "--labels", "Machine failur"]);
    assert_eq!(code, 2);
    assert!(said.contains("did you mean `Machine failure`?"), "{said}");
    let (code, said) = failure([
        "evaluate",
        "--readings",
        &data("compressor.csv"),
        "--class",
        &data("compressor.toml"),
        "--time-column",
        "dateTim",
    ]);
    assert_eq!(code, 2);
    assert!(said.contains("no column `dateTim`") && said.contains("did you mean `datetime`?"), "{said}");
}

#[test]
fn mistakes_have_their_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let mill = data("mill.csv");
    let label = std::fs::read_to_string(&mill).unwrap().replacen(",0,0,0,0,0,0\n", ",maybe,0,0,0,0,0\n", 1);
    let no_channel = file(&folder, "class.toml", "[class]\nid = \"x\"\n");
    for (code, word, args) in [
        (5, "no-such.csv", vec!["--readings", "no-such.csv"]),
        (5, "no header line", vec!["--readings", &file(&folder, "empty.csv", "")]),
        (
            5,
            "no row that could be judged",
            vec!["--readings", &file(&folder, "header.csv", label.lines().next().unwrap())],
        ),
        (5, "label.csv:2:", vec!["--readings", &file(&folder, "label.csv", &label)]),
        (
            5,
            "all are taken for training",
            vec!["--readings", &mill, "--detector", "mahalanobis", "--train-rows", "9999"],
        ),
        (5, "nothing can be learnt", vec!["--readings", &mill, "--detector", "mahalanobis", "--train-rows", "1"]),
        (3, "no class `lathe`", vec!["--readings", &mill, "--class", "lathe"]),
        (3, "class.toml:", vec!["--readings", &mill, "--class", &no_channel]),
        (2, "--false-alarm-rate", vec!["--readings", &mill, "--false-alarm-rate", "1"]),
        (2, "cannot be used with", vec!["--readings", &mill, "--train-rows", "1", "--train", &mill]),
        (2, "--train-until: `soon`", vec!["--readings", &mill, "--train-until", "soon"]),
        (2, "--interval", vec!["--readings", &mill, "--interval", "0s"]),
        (2, "no time zone `Mars`", vec!["--readings", &mill, "--time-zone", "Mars"]),
    ] {
        let (exit, said) = failure(["evaluate"].into_iter().chain(args));
        assert!(exit == code && said.contains(word), "{exit} {said}");
    }
}

/// docs/class-file.md has the whole file.
#[test]
fn the_example_of_the_guide_is_the_class_that_is_tested() {
    let guide = include_str!("../../../../docs/class-file.md");
    let (_, rest) = guide.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```\n").unwrap();
    assert_eq!(example, std::fs::read_to_string(data("compressor.toml")).unwrap());
    assert!(millwright(["class", "check", &data("compressor.toml")]).status.success());
}
