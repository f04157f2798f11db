//! What the README says to type does what the README says.

use std::path::{Path, PathBuf};

use gw_tests::binary::{gw, repository};
use gw_tests::dev::{Dev, FREE, bash};
use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http::{get, get_tls};

/// The blocks of a language in a Markdown file.
fn blocks(file: &Path, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("it was found");
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        open = match (open.take(), fence) {
            (None, Some(name)) => Some((name.trim() == language, String::new())),
            (Some((true, block)), Some(_)) => {
                blocks.push(block);
                None
            }
            (Some((wanted, block)), None) => Some((wanted, block + line + "\n")),
            (Some((false, _)), Some(_)) | (None, None) => None,
        };
    }
    blocks
}

fn readme() -> PathBuf {
    repository().join("README.md")
}

/// The commands of gw in the shell blocks of a file, each as `gw …`.
fn commands(file: &Path) -> Vec<String> {
    let blocks = blocks(file, "sh").concat().replace("\\\n", " ");
    let lines = blocks.lines().map(|l| l.split(" #").next().unwrap_or(l).trim());
    lines
        .filter_map(|l| match l.strip_prefix("cargo run --release -- ") {
            Some(args) => Some(format!("gw {args}")),
            None => l.starts_with("gw ").then(|| l.to_owned()),
        })
        .collect()
}

/// The only command of the README that begins like this.
fn command(start: &str) -> String {
    let mut all = commands(&readme());
    all.retain(|c| c.starts_with(start));
    assert_eq!(all.len(), 1, "commands that begin with `{start}`: {all:?}");
    all.remove(0)
}

#[test]
fn every_command_is_one_that_gw_understands() {
    let mut files = vec![readme()];
    let docs = std::fs::read_dir(repository().join("docs")).expect("there are docs");
    files.extend(docs.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "md")));
    files.push(repository().join("fixtures/orders/README.md"));
    for file in &files {
        for command in commands(file) {
            let help = bash(&command, "--help");
            let name = command.split(' ').nth(1).unwrap_or_default();
            assert!(
                help.contains("Usage: ") && help.contains(name),
                "{}: `{command}`: {help}",
                file.display()
            );
        }
    }
    assert!(commands(&readme()).len() >= 5, "the README's commands are found");
}

#[test]
fn every_program_of_the_readme_is_there() {
    for line in blocks(&readme(), "sh").concat().lines() {
        let program = line.split(' ').next().unwrap_or_default();
        let known = ["cargo", "gw"].contains(&program) || repository().join(program).is_file();
        assert!(known, "`{line}` runs something that a reader does not have");
    }
}

#[test]
fn the_first_two_commands_show_what_they_promise() {
    let serve = command("gw serve --dev");
    let args: Vec<&str> = serve.split(' ').skip(1).chain(FREE.iter().copied()).collect();
    let dev = Dev::run(&args);
    let pasted: Vec<&str> = dev.shown.iter().map(|l| l.trim()).filter(|l| l.starts_with("curl ")).collect();
    for (line, status) in pasted.iter().zip(["200", "401"]) {
        let answer = bash(line, "-sS");
        assert_eq!(answer.split(' ').nth(1), Some(status), "`{line}`: {answer}");
    }
    assert!(pasted.len() >= 2, "{:#?}", dev.shown);

    let address = pasted[1].rsplit(' ').next().and_then(|u| u.strip_suffix("/orders")).expect("a URL");
    let bench = command("gw bench");
    assert!(bench.contains("http://127.0.0.1:8000/"), "{bench}");
    let bench = bench.replace("http://127.0.0.1:8000", address);
    let mut report = bash(&bench, "--no-progress");
    if !report.contains("429") {
        // The minute turned in between; it will not do so twice.
        report = bash(&bench, "--no-progress");
    }
    for part in ["429", "alice: 100 per minute", "held"] {
        assert!(report.contains(part), "`{part}` not in {report}");
    }
}

#[test]
fn the_commands_about_the_order_service_work() {
    let file = repository().join("fixtures/orders/README.md");
    let text = std::fs::read_to_string(&file).expect("it is there");
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("gw ")).collect();
    assert_eq!(lines.len(), 8, "{lines:#?}");
    for (start, part) in [
        ("gw token mint", "eyJ"),
        ("gw token mint", "bob"),
        ("gw validate", "kong.yaml: ok"),
        ("gw validate", "every request to route `orders-route` gets 401"),
    ]
    .iter()
    .enumerate()
    .map(|(i, (start, part))| (lines.iter().filter(|l| l.starts_with(start)).nth(i % 2), part))
    {
        let line = start.expect("a command of that name");
        let said = bash(line, "");
        assert!(said.contains(part), "`{line}`: {said}");
    }
    let serve: Vec<&str> = lines[0].split(' ').skip(1).chain(FREE.iter().copied()).collect();
    let dev = Dev::run(&serve);
    let token = dev.command("orders-route");
    let bare = dev.command("without credentials").to_owned();
    for (command, more, parts) in [
        (token, "-sS", &["200", "x-correlation-id", "ratelimit-remaining: 99"][..]),
        (&bare, "-sS", &["401"]),
        (token, "-sS -X DELETE", &["404"]),
    ] {
        let answer = bash(command, more).to_lowercase();
        assert!(parts.iter().all(|p| answer.contains(p)), "`{command} {more}`: {answer}");
    }
}

#[test]
fn the_production_run_works_with_the_config_above_it() {
    let folder = Folder::new("readme");
    let yaml = blocks(&readme(), "yaml");
    let [yaml] = &yaml[..] else { panic!("one config, not {yaml:#?}") };
    let config = folder.write("kong.yaml", yaml);
    let environment = [("ALICE_SECRET", "0123456789abcdef0123456789abcdef")];
    for start in ["gw certs server", "gw validate"] {
        let command = command(start);
        let mut words = command.split_whitespace();
        assert_eq!(words.next(), Some("gw"));
        let out = gw().args(words).envs(environment).current_dir(folder.path()).output().expect("gw starts");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "`{command}`: {said}{}", String::from_utf8_lossy(&out.stdout));
    }
    let serve = command("gw serve kong.yaml").replace("0.0.0.0:8443", "127.0.0.1:0");
    let serve = serve.replace("127.0.0.1:9090", "127.0.0.1:0");
    let certs = folder.path().join("certs");
    let serve = serve.replace("certs/", &format!("{}/", certs.display()));
    let args: Vec<&str> = serve.split_whitespace().skip(3).collect();
    let mut gateway = Gateway::start_in(&environment, &config, &args);
    let answer = get_tls(&certs.join("ca.pem"), gateway.tls_addr(), "/orders", &[]);
    assert_eq!(answer.status(), 401, "{answer:?}");
    let admin = gateway.hears("admin on http://");
    let admin = admin.rsplit('/').next().and_then(|a| a.parse().ok()).expect("an address");
    assert_eq!(get(admin, "/healthz").status(), 200);
    assert!(get(admin, "/metrics").text().contains("gw_config_generation 1"));
}
