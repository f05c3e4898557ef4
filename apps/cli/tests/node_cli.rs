//! The command line as people use it with Node peers: `party pull --open` and `party serve --open`.
#![cfg(feature = "node")]

use std::{path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use conformance::node::{
    Kind, NodeOptions, NodePeer, Release, block, digest, digest_of_blocks, hex, in_time,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

#[tokio::test(flavor = "multi_thread")]
async fn pull_reads_what_node_writes() -> Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_party"));
    for (options, kind) in [
        (NodeOptions::store(), Kind::Default),
        (NodeOptions::store(), Kind::Compat),
        (NodeOptions::cores(Release::Ten), Kind::Compat),
    ] {
        for (count, size) in [(20_000, 1_024), (200, 65_536)] {
            in_time(pull(program, &options, kind, count, size)).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn node_reads_what_serve_has_and_appends() -> Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_party"));
    for compat in [false, true] {
        in_time(serve(program, compat)).await?;
    }
    Ok(())
}

async fn pull(program: &Path, options: &NodeOptions, kind: Kind, count: u64, size: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("store");
    let node = NodePeer::spawn(options)?;
    let key = node.create("a", kind).await?.key;
    node.append("a", 30, count, size).await?;
    let address = format!("127.0.0.1:{}", node.listen().await?);
    let pull = |live: &[&str]| {
        let mut command = Command::new(program);
        command.args(["pull", "--open", "--store"]).arg(&store);
        command.args(["--connect", &address, "--feed", &key]).args(live);
        command
    };

    succeed(pull(&[])).await?;
    let content = digest([cat(program, &store, &key).await?]);
    assert_eq!(content, digest_of_blocks(30, count, size));

    let (_live, mut lines) = start(pull(&["--live"]))?;
    for number in 1..=3 {
        node.append("a", 30, 1, size).await?;
        next_with(&mut lines, &format!("{key}  {} blocks", count + number)).await?;
    }
    Ok(())
}

async fn serve(program: &Path, compat: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("store");
    let content: Vec<u8> = (0..5_000).flat_map(|index| block(31, index, 1_024)).collect();
    std::fs::write(folder.path().join("content"), content)?;
    let feed = |verb: &str| {
        let mut command = Command::new(program);
        command.args(["feed", verb, "--name", "a", "--store"]).arg(&store);
        command
    };
    let mut create = feed("create");
    create.args(compat.then_some("--compat"));
    let key = String::from_utf8(succeed(create).await?)?.trim().to_owned();
    let mut append = feed("append");
    append.args(["--chunk", "1024"]).arg(folder.path().join("content"));
    succeed(append).await?;

    let mut command = Command::new(program);
    command.args(["serve", "--open", "--append", "a", "--listen", "127.0.0.1:0", "--store"]).arg(&store);
    let (mut server, mut lines) = start(command)?;
    let port = next_with(&mut lines, "listening 127.0.0.1:").await?.parse()?;
    let releases: &[NodeOptions] = if compat {
        &[NodeOptions::store(), NodeOptions::cores(Release::Ten), NodeOptions::cores(Release::TenNineteen)]
    } else {
        &[NodeOptions::store()]
    };
    let mut length = 5_000;
    for options in releases {
        let node = NodePeer::spawn(options)?;
        node.open("a", &key).await?;
        node.dial(port).await?;
        node.follow("a", length).await?;
        assert_eq!(node.get("a", 4_999).await?, hex(&block(31, 4_999, 1_024)));
        let stdin = server.stdin.as_mut().context("no standard input")?;
        stdin.write_all(format!("line {length}\n").as_bytes()).await?;
        length += 1;
        node.follow("a", length).await?;
        assert_eq!(node.get("a", length - 1).await?, hex(format!("line {}", length - 1).as_bytes()));
    }
    Ok(())
}

async fn cat(program: &Path, store: &Path, key: &str) -> Result<Bytes> {
    let mut command = Command::new(program);
    command.args(["feed", "cat", "--key", key, "--store"]).arg(store);
    Ok(succeed(command).await?.into())
}

async fn succeed(mut command: Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn start(mut command: Command) -> Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let stdout = child.stdout.take().context("no standard output")?;
    Ok((child, BufReader::new(stdout).lines()))
}

/// What follows `prefix` in the first line that begins with it.
async fn next_with(lines: &mut Lines<BufReader<ChildStdout>>, prefix: &str) -> Result<String> {
    while let Some(line) = lines.next_line().await? {
        if let Some(rest) = line.strip_prefix(prefix) {
            return Ok(rest.to_owned());
        }
    }
    anyhow::bail!("it ended without a line that begins with {prefix:?}")
}
