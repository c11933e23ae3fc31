//! Container images without a registry: built by buildah, as archives that a node takes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// An image in a file that `ctr images import`, `podman load` and others take.
#[derive(Debug)]
pub struct ContainerImage {
    /// Its name and tag.
    pub name: String,
    /// The file.
    pub archive: PathBuf,
}

impl ContainerImage {
    /// Mailferry's image, by the last stage of its Dockerfile, with a program of this machine and the libraries that it was
    /// linked with.
    #[must_use]
    pub fn of_program(name: &str, program: &Path, folder: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/image.sh");
        let archive = folder.join("mailferry.tar");
        run(Command::new(script).arg("--program").arg(program).arg(name).arg(&archive));
        Self { name: name.to_owned(), archive }
    }

    /// The image that holds a pod's network: a program that waits until it is asked to end.
    #[must_use]
    pub fn pause(name: &str, folder: &Path) -> Self {
        let context = folder.join("pause");
        fs::create_dir_all(&context).expect("folder");
        let source = folder.join("pause.c");
        let text = "#include <signal.h>\n#include <unistd.h>\nstatic void end(int s) { (void)s; _exit(0); }\n\
                    int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }\n";
        fs::write(&source, text).expect("write");
        run(Command::new("gcc").args(["-static", "-O", "-o"]).arg(context.join("pause")).arg(source));
        let stage = "FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT [\"/pause\"]\n";
        fs::write(context.join("Dockerfile"), stage).expect("write");
        let archive = folder.join("pause.tar");
        let store = folder.join("images");
        let buildah = || {
            let mut buildah = Command::new("buildah");
            buildah.env("BUILDAH_ISOLATION", "chroot").args(["--storage-driver", "vfs"]);
            buildah.arg("--root").arg(store.join("store")).arg("--runroot").arg(store.join("run"));
            buildah
        };
        run(buildah().args(["build", "--tag", name]).arg(&context));
        run(buildah().args(["push", name]).arg(format!("oci-archive:{}:{name}", archive.display())));
        fs::remove_dir_all(store).expect("remove");
        Self { name: name.to_owned(), archive }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
