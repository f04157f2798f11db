//! The reference documentation, made from the tables that configs are read against: Markdown and JSON Schema.

pub mod json_schema;
pub mod markdown;

use std::collections::BTreeMap;

use gw_runtime::diag::codes;
use gw_runtime::policy::registry::REGISTRY;

use crate::commands::explain::code as explain;

/// Every generated page: path below `docs/` and text.
pub fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    for plugin in REGISTRY {
        pages.insert(format!("plugins/{}.md", plugin.name), markdown::plugin(plugin));
    }
    pages.insert("config.md".to_owned(), markdown::config());
    pages.insert("plugins/README.md".to_owned(), plugin_list());
    for code in codes::ALL {
        pages.insert(
            format!("diagnostics/{}.md", code.id),
            format!("{}{}", markdown::NOTICE, explain::page(code)),
        );
    }
    pages.insert("diagnostics/README.md".to_owned(), code_list());
    pages
}

fn plugin_list() -> String {
    let mut out = format!(
        "{}# Plugins\n\nIn alphabetical order.\n\n| plugin | what it does | Kong has it |\n|---|---|---|\n",
        markdown::NOTICE
    );
    let mut plugins = REGISTRY.to_vec();
    plugins.sort_by_key(|p| p.name);
    for p in plugins {
        let kong = if p.extension { "no" } else { "yes" };
        out.push_str(&format!("| [{0}]({0}.md) | {1} | {kong} |\n", p.name, p.summary));
    }
    out
}

fn code_list() -> String {
    let mut out = format!(
        "{}# Diagnostics\n\n`gw explain CODE` prints a page; `gw validate -D`, `-W` and `-A` take codes and names.\n\n\
         | code | name | level |\n|---|---|---|\n",
        markdown::NOTICE
    );
    for code in codes::ALL {
        out.push_str(&format!("| [{0}]({0}.md) | {1} | {2} |\n", code.id, code.name, explain::level(code)));
    }
    out
}
