//! The live page and the page of the API: files of ours, embedded as they are; nothing comes from elsewhere.

use crate::problem::Problem;
use axum::{
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Files under `/web/`: name, type, text.
const FILES: [(&str, &str, &str); 8] = [
    ("live.css", CSS, include_str!("../web/live.css")),
    ("live.js", SCRIPT, include_str!("../web/live.js")),
    ("chart.js", SCRIPT, include_str!("../web/chart.js")),
    ("words.js", SCRIPT, include_str!("../web/words.js")),
    ("icon.svg", "image/svg+xml", include_str!("../web/icon.svg")),
    ("theme.js", SCRIPT, include_str!("../web/theme.js")),
    ("api.css", CSS, include_str!("../web/api.css")),
    ("api.js", SCRIPT, include_str!("../web/api.js")),
];

/// The live page.
pub(crate) async fn index() -> Response {
    serve(HTML, include_str!("../web/live.html"))
}

/// The page of the API, drawn from `/openapi.json`.
pub(crate) async fn api_docs() -> Response {
    serve(HTML, include_str!("../web/api.html"))
}

/// A file of a page.
pub(crate) async fn file(
    path: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Response, Problem> {
    let name = path.map(|Path(name)| name).unwrap_or_default();
    let found = FILES.iter().find(|(file, ..)| *file == name);
    found
        .map(|(_, kind, text)| serve(kind, text))
        .ok_or_else(|| Problem::missing("no_such_file", "there is no such file"))
}

fn serve(kind: &'static str, text: &'static str) -> Response {
    // A new release is a new page at once; the files are small and come from this machine.
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const PAGES: [&str; 2] = [include_str!("../web/live.html"), include_str!("../web/api.html")];

    /// Key to text of one dictionary of words.js: one `key: "text",` a line.
    fn words(language: &str) -> BTreeMap<&'static str, &'static str> {
        let text = FILES.iter().find(|(name, ..)| *name == "words.js").unwrap().2;
        let from = text.find(&format!("  {language}: {{\n")).expect("the dictionary is there");
        let lines = text[from..].lines().skip(1).take_while(|line| line.trim() != "},");
        lines
            .map(|line| {
                let (key, text) = line.trim().split_once(": \"").unwrap_or_else(|| panic!("no word: {line}"));
                (key, text.strip_suffix("\",").unwrap_or_else(|| panic!("no end of a word: {line}")))
            })
            .collect()
    }

    #[test]
    fn both_languages_have_the_same_words() {
        let (en, ko) = (words("en"), words("ko"));
        assert!(en.len() > 50, "{}", en.len());
        assert_eq!(en.keys().collect::<Vec<_>>(), ko.keys().collect::<Vec<_>>());
        for (key, text) in en.iter().chain(&ko) {
            assert!(!text.trim().is_empty(), "{key} is blank");
        }
        for (key, text) in &en {
            let holes = |text: &str| text.matches('{').count();
            assert_eq!(holes(text), holes(ko[key]), "{key} has other holes in Korean");
        }
    }

    #[test]
    fn korean_words_need_no_particle_in_brackets() {
        for (key, text) in words("ko") {
            for bad in ["이(가)", "을(를)", "은(는)", "와(과)", "(으)로"] {
                assert!(!text.contains(bad), "{key}: {text}");
            }
        }
    }

    #[test]
    fn the_page_uses_words_that_are_there() {
        let en = words("en");
        let (html, script, chart) = (PAGES[0], FILES[1].2, FILES[2].2);
        let mut used = 0;
        let places = [
            (html, "data-word=\"", '"'),
            (html, "data-label=\"", '"'),
            (script, "word(\"", '"'),
            (chart, "word(\"", '"'),
        ];
        for (text, mark, end) in places {
            for (at, _) in text.match_indices(mark) {
                let rest = &text[at + mark.len()..];
                let key = &rest[..rest.find(end).unwrap()];
                assert!(en.contains_key(key), "{key} is in no dictionary");
                used += 1;
            }
        }
        assert!(used > 20);
    }

    #[test]
    fn what_the_api_says_in_words_has_a_word() {
        let en = words("en");
        for state in alarm::State::WORDS {
            assert!(en.contains_key(state), "an alarm's state {state}");
        }
        for kind in ["stuck", "quality", "refused", "no_data", "clock_skew", "model"] {
            assert!(en.contains_key(&*format!("sensor_{kind}")), "a condition {kind}");
        }
        let lists = PAGES[0].split("data-list=\"").skip(1).map(|rest| &rest[..rest.find('"').unwrap()]);
        let lists: Vec<_> = lists.collect();
        assert_eq!(lists, ["machine", "sensor", "system", "notice"]);
        for list in lists {
            assert!(en.contains_key(&*format!("list_{list}")), "a list of {list} alarms");
        }
    }

    #[test]
    fn pages_hold_nothing_inline_and_nothing_from_elsewhere() {
        let texts = PAGES.iter().chain(FILES.iter().map(|(.., text)| text));
        for text in texts {
            for bad in
                ["http://", "https://", " onclick", " onload", " style=", "<style", "javascript:", "innerHTML", "eval("]
            {
                let without_namespace = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!without_namespace.contains(bad), "{bad}");
            }
        }
        for page in PAGES {
            for (at, _) in page.match_indices("<script") {
                assert!(
                    page[at..].starts_with("<script src=\"/web/")
                        || page[at..].starts_with("<script type=\"module\" src=\"/web/")
                );
            }
        }
    }
}
