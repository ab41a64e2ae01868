//! The pages that the `type` of a problem leads to: `/docs/errors` and one below it for each code, made of `host/docs/ERRORS.md`, which is compiled in.
//! Knows the form of that page, and no code.
//!
//! That page is our own, and what it uses of Markdown is little: headings, paragraphs, one table a section, a block of code, code in a line. A test says so.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};

use crate::problem::{ERROR_PAGES, OwnPage};

/// Where the pages' style is.
pub const STYLE: &str = "/docs/errors.css";

const TEXT: &str = include_str!("../../../docs/ERRORS.md");
const CSS: &str = include_str!("error_pages.css");
/// A style of this origin, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static PAGES: LazyLock<Pages> = LazyLock::new(|| Pages::of(TEXT));

struct Pages {
    list: String,
    /// By code.
    of_codes: BTreeMap<String, String>,
}

/// A row of a table: what it is about, and its cells with the titles of their columns.
struct Row {
    section: String,
    codes: Vec<String>,
    cells: Vec<(String, String)>,
}

/// What is at this path: the list, the style, the page of a code, else 404 with the list.
pub fn answer(path: &str) -> Response {
    let html = |status: StatusCode, text: String| (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], Body::from(text)).into_response();
    let mut response = match path.strip_prefix(ERROR_PAGES).map(|rest| rest.strip_prefix('/').unwrap_or(rest)) {
        Some("") => html(StatusCode::OK, PAGES.list.clone()),
        _ if path == STYLE => ([(CONTENT_TYPE, "text/css; charset=utf-8")], CSS).into_response(),
        code => match code.and_then(|code| PAGES.of_codes.get(code)) {
            Some(page) => html(StatusCode::OK, page.clone()),
            None => {
                let mut response = html(StatusCode::NOT_FOUND, PAGES.unknown());
                response.extensions_mut().insert(OwnPage);
                response
            }
        },
    };
    let is_there = response.status() == StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(if is_there { "public, max-age=3600" } else { "no-store" }));
    response
}

impl Pages {
    fn of(text: &str) -> Self {
        let rows = rows_of(text);
        let mut of_codes: BTreeMap<String, String> = BTreeMap::new();
        for row in &rows {
            for code in &row.codes {
                of_codes.entry(code.clone()).or_default().push_str(&row.described());
            }
        }
        for (code, body) in &mut of_codes {
            let heading = format!("<h1><code>{}</code></h1>\n", escaped(code));
            *body = document(code, &format!("{heading}{body}<p><a href=\"{ERROR_PAGES}\">All error codes</a></p>\n"));
        }
        Self { list: document("Error codes", &listed(text)), of_codes }
    }

    /// The code may be one of a service that is not of this repository: what it means, those say who run it.
    fn unknown(&self) -> String {
        let mut body = "<h1>No such error code</h1>\n<p>The host itself and Echo's own services have no error of this code. Another service that runs here may; \
                        then its <code>detail</code> says what it means. The codes that there are:</p>\n<ul>\n"
            .to_owned();
        for code in self.of_codes.keys() {
            let _ = writeln!(body, "<li>{}</li>", link(code));
        }
        document("No such error code", &format!("{body}</ul>\n"))
    }
}

impl Row {
    fn described(&self) -> String {
        let mut html = format!("<h2>{}</h2>\n<dl>\n", inline(&self.section));
        for (title, cell) in self.cells.iter().filter(|(_, cell)| cell != "–") {
            // Several codes that one row explains in their order.
            let cell =
                if title == "code" { codes_in(cell).iter().map(|code| link(code)).collect::<Vec<_>>().join(" · ") } else { inline(cell) };
            let _ = writeln!(html, "<dt>{}</dt><dd>{cell}</dd>", escaped(&capitalised(title)));
        }
        html + "</dl>\n"
    }
}

fn rows_of(text: &str) -> Vec<Row> {
    let (mut rows, mut section, mut titles) = (Vec::new(), String::new(), Vec::new());
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut section);
        }
        match cells_of(line) {
            Some(cells) if cells.iter().any(|cell| cell == "code") => titles = cells,
            Some(cells) if !is_rule(&cells) => {
                let codes = titles.iter().position(|title| title == "code").map(|at| codes_in(&cells[at])).unwrap_or_default();
                rows.push(Row { section: section.clone(), codes, cells: titles.iter().cloned().zip(cells).collect() });
            }
            _ => {}
        }
    }
    rows
}

/// The whole page.
fn listed(text: &str) -> String {
    let (mut html, mut paragraph) = (String::new(), Vec::new());
    let (mut is_code, mut is_table, mut is_comment) = (false, false, false);
    for line in text.lines().chain([""]) {
        let is_fence = line.starts_with("```");
        is_comment |= line.starts_with("<!--");
        if is_comment {
            is_comment = !line.ends_with("-->");
            continue;
        }
        let cells = cells_of(line).filter(|_| !is_code);
        let is_text = !(is_fence || is_code || line.is_empty() || line.starts_with('#') || cells.is_some());
        if is_text {
            paragraph.push(line);
            continue;
        }
        if !paragraph.is_empty() {
            let _ = writeln!(html, "<p>{}</p>", inline(&std::mem::take(&mut paragraph).join(" ")));
        }
        if is_table && cells.is_none() {
            html += "</table>\n";
            is_table = false;
        }
        match cells {
            Some(cells) if is_rule(&cells) => {}
            Some(cells) => {
                let kind = if is_table { "td" } else { "th" };
                html += if is_table { "<tr>" } else { "<table>\n<tr>" };
                for (at, cell) in cells.iter().enumerate() {
                    let shown = if at == 1 && is_table {
                        codes_in(cell).iter().map(|code| link(code)).collect::<Vec<_>>().join(" · ")
                    } else {
                        inline(cell)
                    };
                    let _ = write!(html, "<{kind}>{shown}</{kind}>");
                }
                html += "</tr>\n";
                is_table = true;
            }
            None if is_fence => {
                html += if is_code { "</pre>\n" } else { "<pre>" };
                is_code = !is_code;
            }
            None if is_code => {
                let _ = writeln!(html, "{}", escaped(line));
            }
            None => {
                if let Some(heading) = line.strip_prefix("## ") {
                    let _ = writeln!(html, "<h2>{}</h2>", inline(heading));
                } else if let Some(heading) = line.strip_prefix("# ") {
                    let _ = writeln!(html, "<h1>{}</h1>", inline(heading));
                }
            }
        }
    }
    html
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}: Echo</title>\n<link rel=\"stylesheet\" href=\"{STYLE}\">\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escaped(title)
    )
}

/// Of a line of a table.
fn cells_of(line: &str) -> Option<Vec<String>> {
    let inside = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inside.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// The line between a table's head and its rows.
fn is_rule(cells: &[String]) -> bool {
    cells.iter().all(|cell| cell.bytes().all(|byte| byte == b'-'))
}

/// What stands between backticks.
fn codes_in(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn link(code: &str) -> String {
    let code = escaped(code);
    format!("<a href=\"{ERROR_PAGES}/{code}\"><code>{code}</code></a>")
}

/// Text with code in it.
fn inline(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(at, part)| if at % 2 == 1 { format!("<code>{}</code>", escaped(part)) } else { escaped(part) }).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body_of(path: &str) -> (u16, String) {
        let response = answer(path);
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_code_of_the_page_has_one_of_its_own_and_the_list_leads_there() {
        let (status, list) = body_of(ERROR_PAGES).await;
        assert_eq!((status, body_of(&format!("{ERROR_PAGES}/")).await), (200, (200, list.clone())));
        let mut codes = 0;
        for row in TEXT.lines().filter(|line| line.starts_with('|') && line.contains('`')) {
            for code in codes_in(row.split('|').nth(2).unwrap()) {
                codes += 1;
                let (status, page) = body_of(&format!("{ERROR_PAGES}/{code}")).await;
                assert!(status == 200 && page.contains(&format!("<h1><code>{code}</code></h1>")), "{code}: {page}");
                assert!(list.contains(&format!("href=\"{ERROR_PAGES}/{code}\"")), "{code} is not in the list");
            }
        }
        assert!(codes > 150, "only {codes} codes were found");
        let (_, taken) = body_of(&format!("{ERROR_PAGES}/phone_taken")).await;
        for part in [
            "<dt>Status</dt><dd>409</dd>",
            "<dd>a verified account has the number</dd>",
            "<dt>What to do</dt><dd>sign in</dd>",
            "<h2>Accounts",
        ] {
            assert!(taken.contains(part), "{part} is missing in {taken}");
        }
        // What two places explain is explained twice, and what stands in angles is text.
        let (_, twice) = body_of(&format!("{ERROR_PAGES}/origin_refused")).await;
        assert_eq!(twice.matches("<h2>").count(), 2, "{twice}");
        assert!(
            body_of(&format!("{ERROR_PAGES}/token_missing")).await.1.contains("<code>Authorization: Bearer &lt;access token&gt;</code>")
        );
    }

    #[tokio::test]
    async fn a_code_that_there_is_not_is_404_with_those_that_there_are() {
        for path in ["/docs/errors/no_such_code", "/docs/errors/<script>", "/docs/errors/phone_taken/more", "/docs/errorsx"] {
            let (status, page) = body_of(path).await;
            assert!(status == 404 && page.contains("/docs/errors/phone_taken\"") && !page.contains("<script"), "{path}: {page}");
            assert!(answer(path).extensions().get::<OwnPage>().is_some());
        }
    }

    #[test]
    fn the_page_uses_no_more_of_markdown_than_is_read_here() {
        for (number, line) in TEXT.lines().enumerate() {
            let plain = line.split('`').step_by(2).collect::<String>();
            let is_known = line.starts_with("<!--") || line.starts_with('{') || line.starts_with(" \"");
            for sign in ["**", "](", "<", ">", "* ", "###"] {
                assert!(is_known || !plain.contains(sign), "line {}: {sign} is not read", number + 1);
            }
            let columns = cells_of(line).map_or(4, |cells| cells.len());
            assert_eq!(columns, 4, "line {}", number + 1);
        }
        for exception in ["unsafe", "*", "data:", "http"] {
            assert!(!POLICY.contains(exception), "{exception}");
        }
        let inline_style = [PAGES.list.as_str(), &PAGES.unknown()].concat();
        assert!(["<style", "<script", " style=", "http:", "https:"].iter().all(|part| !inline_style.contains(part)));
    }
}
