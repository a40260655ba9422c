//! Runs each target over its corpus.

use std::fs;
use std::path::Path;

use connlog_fuzz::TARGETS;

#[test]
fn what_was_found_holds() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for file in files {
            let file = file.expect("a folder can be listed").path();
            println!("{}", file.display());
            target(&fs::read(file).expect("a file can be read"));
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}
