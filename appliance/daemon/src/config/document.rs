//! `docs/configuration.md`, from the table of keys.

use super::schema::{KEYS, Key};

const HEAD: &str = "\
# Configuration

<!-- Written by the test `the_document_is_current` of `daemon` from its table of keys: change
     `appliance/daemon/src/config/schema.rs` and run it with UPDATE_GOLDEN=1. -->

`holdfastd` reads one TOML file: `holdfastd --config FILE`, by default
`/etc/holdfast/holdfastd.toml`. Without that file every key has its default. Unknown keys, values
that are wrong, and keys that would have no effect are refused, all at once and each with its line:

    holdfastd check-config FILE

What the node serves (stores, volumes, exports) is not configured here: it is asked for with
`holdfast` and kept in the state directory.
";

/// The whole document.
#[must_use]
pub fn document() -> String {
    let mut text = HEAD.to_owned();
    let mut table = "";
    for key in KEYS {
        let (here, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if here != table {
            table = here;
            text.push_str(&format!("\n## `[{table}]`\n"));
        } else if key.path == KEYS[0].path {
            text.push_str("\n## Top level\n");
        }
        text.push_str(&section(key, name));
    }
    text.push_str(&example());
    text
}

fn section(key: &Key, name: &str) -> String {
    let Key { takes, default, doc, .. } = key;
    let default = match default.strip_prefix('(') {
        Some(sentence) => sentence.trim_end_matches(')').to_owned(),
        None => format!("`{default}`"),
    };
    let mut text = format!("\n### `{name}`\n\n");
    wrap(doc, &mut text);
    text.push('\n');
    wrap(&format!("Takes {takes}. Default: {default}."), &mut text);
    text
}

fn example() -> String {
    let mut text = "\n## All keys, with values that are not the defaults\n\n```toml\n".to_owned();
    let mut table = "";
    for key in KEYS {
        let (here, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if here != table {
            table = here;
            text.push_str(&format!("\n[{table}]\n"));
        }
        text.push_str(&format!("{name} = {}\n", key.example));
    }
    text.push_str("```\n");
    text
}

/// Appends `words` in lines of at most 100 columns.
fn wrap(words: &str, text: &mut String) {
    let mut column = 0;
    for word in words.split_whitespace() {
        if column > 0 && column + 1 + word.len() > 100 {
            text.push('\n');
            column = 0;
        }
        if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}
