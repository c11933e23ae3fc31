//! The pages for developers against the code: the table of parts, and the files in which names are said to stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

use super::WALLS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_table_of_parts_says_what_each_may_import() {
    let page = fs::read_to_string(root().join("docs/development/architecture.md")).unwrap();
    let rows =
        page.lines().skip_while(|line| !line.starts_with("| part |")).skip(2).take_while(|line| !line.is_empty());
    let said: BTreeMap<&str, BTreeSet<&str>> = rows
        .map(|row| {
            let (part, _) = row.strip_prefix("| [").unwrap().split_once(']').unwrap();
            let imports = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            (part, imports.split(", ").filter(|import| *import != "nothing").collect())
        })
        .collect();
    let walls = WALLS.iter().map(|(part, imports)| (*part, imports.iter().copied().collect())).collect();
    assert_eq!(said, walls, "left docs/development/architecture.md, right WALLS");
}

/// Looks at a name in front of a link to a file of code: a name and the link in parentheses, both in parentheses, or a
/// name `in` the file.
#[test]
fn names_stand_in_the_files_that_pages_link_beside_them() {
    let beside =
        Regex::new(r"(?:`([^` ]+)` \(|`([^` ]+)` in |\(`([^` ]+)`, )\[[^\]]*\]\(\.\./\.\./([^)#]+\.rs)\)").unwrap();
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    let pages: Vec<PathBuf> =
        fs::read_dir(root().join("docs/development")).unwrap().map(|entry| entry.unwrap().path()).collect();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for found in beside.captures_iter(&text) {
            let name = (1..=3).find_map(|at| found.get(at)).unwrap().as_str();
            let word = name.rsplit("::").next().unwrap().split('(').next().unwrap();
            let code = fs::read_to_string(root().join(&found[4])).unwrap();
            looked_at += 1;
            if !code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|other| other == word) {
                wrong.push(format!("{}: {name} does not stand in {}", page.display(), &found[4]));
            }
        }
    }
    assert!(looked_at > 100, "{looked_at}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
