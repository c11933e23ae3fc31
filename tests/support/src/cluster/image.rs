//! Container images without a registry and without a builder: an OCI layout in a tar file, from files of this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::dovecot::hex_sha256;

/// An image in a file that `ctr images import`, `kind load image-archive` and others take.
#[derive(Debug)]
pub struct Image {
    /// Its name and tag.
    pub name: String,
    /// The file.
    pub archive: PathBuf,
}

impl Image {
    /// An image of a program of this machine with the libraries that it was linked with, the certificate authorities that
    /// this machine trusts, and nothing else.
    #[must_use]
    pub fn of_program(name: &str, program: &Path, folder: &Path) -> Self {
        let root = folder.join("root");
        fs::create_dir_all(root.join("usr/bin")).expect("folder");
        let inside = Path::new("usr/bin").join(program.file_name().expect("a program"));
        fs::copy(program, root.join(&inside)).expect("copy");
        for library in libraries(program) {
            let target = root.join(library.strip_prefix("/").expect("an absolute path"));
            fs::create_dir_all(target.parent().expect("a folder")).expect("folder");
            fs::copy(&library, target).expect("copy");
        }
        let authorities = Path::new("etc/ssl/certs/ca-certificates.crt");
        if Path::new("/").join(authorities).exists() {
            fs::create_dir_all(root.join("etc/ssl/certs")).expect("folder");
            fs::copy(Path::new("/").join(authorities), root.join(authorities)).expect("copy");
        }
        Self::of_folder(name, &root, &Path::new("/").join(inside), folder)
    }

    /// The image that holds a pod's network: a program that waits until it is asked to end.
    #[must_use]
    pub fn pause(name: &str, folder: &Path) -> Self {
        let root = folder.join("pause-root");
        fs::create_dir_all(&root).expect("folder");
        let source = folder.join("pause.c");
        let text = "#include <signal.h>\n#include <unistd.h>\nstatic void end(int s) { (void)s; _exit(0); }\n\
                    int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }\n";
        fs::write(&source, text).expect("write");
        run(Command::new("gcc").args(["-static", "-O", "-o"]).arg(root.join("pause")).arg(source));
        Self::of_folder(name, &root, Path::new("/pause"), folder)
    }

    /// An image that holds a folder's files.
    fn of_folder(name: &str, root: &Path, entry_point: &Path, folder: &Path) -> Self {
        let layout = folder.join("layout");
        fs::create_dir_all(layout.join("blobs/sha256")).expect("folder");
        let layer_file = folder.join("layer.tar");
        let owner = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--mtime=@0"];
        run(Command::new("tar").arg("-cf").arg(&layer_file).args(owner).arg("-C").arg(root).arg("."));
        let blob = |bytes: &[u8]| {
            let digest = hex_sha256(bytes);
            fs::write(layout.join("blobs/sha256").join(&digest), bytes).expect("write");
            format!("sha256:{digest}")
        };
        let layer = fs::read(&layer_file).expect("layer");
        let layer_digest = blob(&layer);
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Entrypoint": [entry_point], "Env": ["PATH=/usr/bin"], "User": "65532:65532"},
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        })
        .to_string();
        let media = |what: &str| format!("application/vnd.oci.image.{what}");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media("manifest.v1+json"),
            "config": {"mediaType": media("config.v1+json"), "digest": blob(config.as_bytes()), "size": config.len()},
            "layers": [{"mediaType": media("layer.v1.tar"), "digest": layer_digest, "size": layer.len()}],
        })
        .to_string();
        let tag = name.rsplit_once(':').expect("a tag").1;
        let index = json!({
            "schemaVersion": 2, "mediaType": media("index.v1+json"),
            "manifests": [{
                "mediaType": media("manifest.v1+json"), "digest": blob(manifest.as_bytes()), "size": manifest.len(),
                "platform": {"architecture": architecture, "os": "linux"},
                "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag},
            }],
        });
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
        fs::write(layout.join("index.json"), index.to_string()).expect("write");
        let archive = folder.join(format!("{}.tar", name.replace(['/', ':'], "-")));
        run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&layout).args([
            "oci-layout",
            "index.json",
            "blobs",
        ]));
        fs::remove_dir_all(layout).expect("remove");
        Self { name: name.to_owned(), archive }
    }
}

/// What the dynamic loader of this machine would load.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
