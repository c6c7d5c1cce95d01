//! Runs every file of `tests/sql`: statements, and what they answer.
//!
//! A file is blocks with an empty line between them. A block is a statement, then `----`, then the
//! rows (columns joined by `|`), or `error` and a part of the error. A block without `----` only has
//! to work. `# …` is a comment; `names A|B` after `----` are the columns' names.

use crate::world::{World, lines};

#[tokio::test]
async fn every_file_answers_as_it_says() {
    // At run time: in a target directory that clones share, this may have been compiled in another.
    let package = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let dir = std::path::Path::new(&package).join("tests/sql");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let mut failures = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let mut world = World::new().await;
        for block in text.split("\n\n") {
            let block: Vec<&str> = block.lines().filter(|l| !l.starts_with('#')).collect();
            let block = block.join("\n");
            if block.trim().is_empty() {
                continue;
            }
            if let Err(why) = check(&mut world, &block).await {
                failures.push(format!("{}:\n{block}\n=> {why}", file.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}\n{} failures", failures.join("\n\n"), failures.len());
}

async fn check(world: &mut World, block: &str) -> Result<(), String> {
    let (sql, expected) = match block.split_once("\n----") {
        Some((sql, expected)) => (sql, Some(expected.trim_start_matches('\n'))),
        None => (block, None),
    };
    // `put bucket/key` and the text that follows writes an object.
    if let Some(rest) = sql.strip_prefix("put ") {
        let (place, text) = rest.split_once('\n').unwrap_or((rest, ""));
        let (bucket, key) = place.split_once('/').unwrap();
        world.put(bucket, key, text.as_bytes().to_vec()).await;
        return Ok(());
    }
    let outcome = world.try_run(sql).await;
    match (outcome, expected) {
        (Err(e), Some(expected)) if expected.starts_with("error") => {
            let wanted = expected.trim_start_matches("error").trim();
            let shown = e.to_string().replace('\n', " ");
            if shown.contains(wanted) { Ok(()) } else { Err(shown) }
        }
        (Err(e), _) => Err(e.to_string()),
        (Ok(answer), Some(expected)) => {
            let mut expected: Vec<&str> = expected.lines().collect();
            if let Some(names) = expected.first().and_then(|l| l.strip_prefix("names ")) {
                let found: Vec<&str> = answer.columns.iter().map(|c| c.name.as_str()).collect();
                if found.join("|") != names {
                    return Err(format!("names {}", found.join("|")));
                }
                expected.remove(0);
            }
            let found = lines(&answer);
            if found == expected { Ok(()) } else { Err(found.join("\n")) }
        }
        (Ok(_), None) => Ok(()),
    }
}

/// A chain is a tree as deep as it is long. What the parser lets through has to be planned and run
/// on a small stack.
#[tokio::test]
async fn the_longest_chains_run() {
    let mut world = World::new().await;
    world.run("create database d").await;
    world.run("create table t (id int, v variant)").await;
    for (base, part, count) in [
        ("f.id", "+1", 240),
        ("f.id", " + f.id", 240),
        ("f.id = 1", " or 1 = f.id", 120),
        ("f.id = 1", " and f.v:a = 1", 80),
        ("f.id", "::int", 240),
        ("f.id", "||'x'", 240),
        ("1", " from t f union all select 1", 48),
    ] {
        let sql = format!("select {base}{} from t f", part.repeat(count));
        if let Err(e) = world.try_run(&sql).await {
            panic!("{part}: {e}");
        }
    }
    let joins: String = (0..25).map(|n| format!(" join t t{n} on t{n}.id = f.id")).collect();
    world.run(&format!("select count(*) from t f{joins}")).await;
    let nested = format!("select {}1{} from t", "abs(".repeat(20), ")".repeat(20));
    world.run(&nested).await;
    let derived = format!("select * from {}t{}", "(select * from ".repeat(15), ")".repeat(15));
    world.run(&derived).await;
}
