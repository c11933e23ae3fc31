//! Two mail servers for `make demo`: the source on port 10993 with alice's mail in it, the destination on port
//! 20993, where her account is empty. The destination names folders differently (`INBOX.` before all, `.` between
//! levels). Both show certificates of an authority whose own certificate goes to the file that is named.
//!
//! Usage: `demo_servers <file for the CA certificate> [<mailferry> <image>]`. It prints a line when all is ready, and runs until
//! its standard input ends.
//!
//! With a `mailferry` program (for `make demo-cluster`) it starts a Kubernetes of one node, too, which has that program as
//! the image of that name and reaches the servers at 10.213.0.1. The line that it prints first is then the kubeconfig's path.

use std::{env, fs, io, path::Path, process::ExitCode};

use mailferry_testkit::{
    Corpus, Dovecot, DovecotOptions, MailFormat,
    cluster::{ContainerImage, TestNode, node::ADDRESS},
    pki::pki,
};

const USER: &str = "alice";
/// As in `examples/demo.yaml`.
const SOURCE_PASSWORD: &str = "p\"a\\s s€";
const DESTINATION_PASSWORD: &str = "it's {5} % fine";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (file, program) = match &arguments[..] {
        [file] => (file, None),
        [file, program, image] => (file, Some((program, image))),
        _ => {
            eprintln!("usage: demo_servers <file for the CA certificate> [<mailferry> <image>]");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = fs::write(file, &pki().ca) {
        eprintln!("{file}: {error}");
        return ExitCode::FAILURE;
    }
    let node = match program {
        Some((program, image)) => match start_node(Path::new(program), image).await {
            Ok(node) => Some(node),
            Err(why) => {
                eprintln!("this machine can't run a Kubernetes node: {why}");
                return ExitCode::FAILURE;
            }
        },
        None => None,
    };
    let listen = node.as_ref().map_or_else(String::new, |_| format!("listen = 127.0.0.1 {ADDRESS}\n"));
    let source = Dovecot::start(&DovecotOptions {
        ports: Some((10143, 10993)),
        extra: listen.clone(),
        ..DovecotOptions::default()
    });
    let destination = Dovecot::start(&DovecotOptions {
        format: MailFormat::Mdbox,
        separator: '.',
        prefix: "INBOX.",
        ports: Some((20143, 20993)),
        extra: listen,
        ..DovecotOptions::default()
    });
    let account = source.add_user(USER, SOURCE_PASSWORD);
    let corpus = Corpus::varied(2026).with_large(10 << 20);
    account.connect().await.seed(&corpus).await;
    let at_destination = destination.add_user(USER, DESTINATION_PASSWORD);
    if let Some(node) = &node {
        println!("{}", node.plane().kubeconfig().display());
    }
    println!(
        "source imap://localhost:{} holds {} messages ({} MB) in {} folders of {}; destination imap://localhost:{} is empty",
        source.tls_port(),
        corpus.messages(),
        corpus.bytes() >> 20,
        corpus.folders.len(),
        account.user,
        at_destination.server.tls_port(),
    );
    // The end of standard input is the sign to stop.
    match io::copy(&mut io::stdin(), &mut io::sink()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A node that has the program as the image of that name.
async fn start_node(program: &Path, image: &str) -> Result<TestNode, String> {
    if let Some(why) = TestNode::missing_requirement() {
        return Err(why);
    }
    let node = TestNode::start().await;
    node.load(&ContainerImage::of_program(image, program, node.folder()));
    Ok(node)
}
