//! What `make install` puts beside the program, and what a release's archive holds.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

const BINARY: &str = env!("CARGO_BIN_EXE_mailferry");

fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn manual_pages_and_completions_are_installed_and_know_every_command() {
    let folder = tempfile::tempdir().unwrap();
    succeeds(Command::new("scripts/install-help.sh").arg(BINARY).arg(folder.path()));
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    for name in ["mailferry", "mailferry-copy", "mailferry-verify", "mailferry-import", "mailferry-kubectl-status"] {
        assert!(read(&format!("man/man1/{name}.1")).contains(".TH"), "{name}");
    }
    assert!(read("man/man1/mailferry-copy.1").contains("source\\-password\\-file"));
    for name in [
        "bash-completion/completions/mailferry",
        "zsh/site-functions/_mailferry",
        "fish/vendor_completions.d/mailferry.fish",
    ] {
        assert!(read(name).contains("destination-password-file"), "{name}");
    }
}

/// What scripts/dist.sh makes, with a program that is small and does what this one does.
fn built(folder: &Path) {
    let program = folder.join("usr/bin/mailferry");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::write(&program, format!("#!/bin/sh\nexec {BINARY} \"$@\"\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let papers = folder.join("usr/share/doc/mailferry");
    fs::create_dir_all(&papers).unwrap();
    fs::write(papers.join("sbom.cdx.json"), "{}").unwrap();
}

#[test]
fn a_release_s_archive_has_the_program_its_papers_and_its_sum_and_is_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    built(&folder.path().join("root"));
    let archive = |out: &str| {
        let mut command = Command::new("scripts/archive.sh");
        command.arg(folder.path().join("root")).arg(folder.path().join(out)).env("SOURCE_DATE_EPOCH", "1700000000");
        succeeds(&mut command).trim_end().to_owned()
    };
    let (one, two) = (archive("one"), archive("two"));
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let sum = format!("{}.sha256", Path::new(&one).file_name().unwrap().display());
    succeeds(Command::new("sha256sum").args(["--check", &sum]).current_dir(folder.path().join("one")));

    let version = env!("CARGO_PKG_VERSION");
    let listed = succeeds(Command::new("tar").args(["-tvzf", &one]));
    for (rights, name) in [
        ("-rwxr-xr-x 0/0", "bin/mailferry"),
        ("lrwxr-xr-x 0/0", "bin/kubectl-mailferry -> mailferry"),
        ("lrwxr-xr-x 0/0", "bin/kubectl_complete-mailferry -> mailferry"),
        ("-rw-r--r-- 0/0", "share/man/man1/mailferry-copy.1"),
        ("-rw-r--r-- 0/0", "share/bash-completion/completions/mailferry"),
        ("-rw-r--r-- 0/0", "share/doc/mailferry/LICENSE"),
        ("-rw-r--r-- 0/0", "share/doc/mailferry/README.md"),
        ("-rw-r--r-- 0/0", "share/doc/mailferry/sbom.cdx.json"),
    ] {
        let is = |line: &str| {
            line.starts_with(rights) && line.contains(&format!("mailferry-{version}-linux-")) && line.ends_with(name)
        };
        assert!(listed.lines().any(is), "{rights} {name} is missing in\n{listed}");
    }
}
