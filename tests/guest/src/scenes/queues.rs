//! Several queues: writers and readers that stay on their CPUs, and blocks that know who they are.

use crate::support::direct::{Buffer, Direct, cpus, stay_on};
use crate::support::runner::tests;
use crate::support::{Added, LONG, Scene};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use std::sync::mpsc;
use std::thread;

pub(crate) const SCENE: Scene = Scene {
    name: "queues",
    needs: "cpus=4 timeout=300",
    tests: tests![
        two_queues_of_512_byte_blocks_give_back_what_each_cpu_wrote,
        four_queues_of_512_byte_blocks_give_back_what_each_cpu_wrote,
        two_queues_of_4096_byte_blocks_give_back_what_each_cpu_wrote,
        four_queues_of_4096_byte_blocks_give_back_what_each_cpu_wrote,
        every_queue_gets_the_requests_of_its_cpus,
        more_queues_than_cpus_are_cut_to_the_cpus,
    ],
};

const GENERATIONS: u64 = 3;
/// Blocks that each CPU writes in a generation.
const BLOCKS: u64 = 96;

fn two_queues_of_512_byte_blocks_give_back_what_each_cpu_wrote() -> Result<()> {
    blocks_know_themselves(2, 512, "")
}

fn four_queues_of_512_byte_blocks_give_back_what_each_cpu_wrote() -> Result<()> {
    blocks_know_themselves(4, 512, "")
}

fn two_queues_of_4096_byte_blocks_give_back_what_each_cpu_wrote() -> Result<()> {
    blocks_know_themselves(2, 4096, "")
}

fn four_queues_of_4096_byte_blocks_give_back_what_each_cpu_wrote() -> Result<()> {
    blocks_know_themselves(4, 4096, "")
}

/// In each generation every CPU writes every n-th block, then the next CPU reads them back.
pub(super) fn blocks_know_themselves(queues: u16, block_bytes: usize, options: &str) -> Result<()> {
    let size = block_bytes as u64 * BLOCKS * cpus()? as u64;
    let device = Added::new(&format!(
        "mem --size {size} --queues {queues} --depth 16 --logical-block-size {block_bytes} {options}"
    ))?;
    ensure!(
        device.queues == u64::from(queues),
        "{} queues",
        device.queues
    );
    ensure!(device.sys("queue/logical_block_size")? == block_bytes.to_string());
    for generation in 1..=GENERATIONS {
        let disk = device.block();
        on_every_cpu(move |cpu| write_blocks(&disk, cpu, generation, block_bytes))?;
        let disk = device.block();
        on_every_cpu(move |cpu| {
            let neighbour = (cpu + 1) % cpus()?;
            check_blocks(&disk, cpu, neighbour, generation, block_bytes)
        })?;
    }
    device.delete()
}

/// Runs `work` on every CPU at the same time.
fn on_every_cpu(work: impl Fn(usize) -> Result<()> + Clone + Send + 'static) -> Result<()> {
    let (results, finished) = mpsc::channel();
    for cpu in 0..cpus()? {
        let (results, work) = (results.clone(), work.clone());
        thread::spawn(move || {
            let result = stay_on(cpu).and_then(|()| work(cpu));
            // Nobody listens any more when another failed first.
            let _ = results.send(result.with_context(|| format!("on CPU {cpu}")));
        });
    }
    drop(results);
    for _ in 0..cpus()? {
        match finished.recv_timeout(LONG) {
            Ok(result) => result?,
            Err(error) => bail!("a CPU's thread does not come back: {error}"),
        }
    }
    Ok(())
}

/// The blocks that a CPU writes: every n-th, so that neighbours are written by different CPUs.
fn blocks_of(cpu: usize) -> Result<impl Iterator<Item = u64>> {
    let step = cpus()?;
    Ok((cpu as u64..BLOCKS * step as u64).step_by(step))
}

/// Number, generation and writer, over and over.
fn stamp(block: u64, generation: u64, cpu: usize, bytes: &mut [u8]) {
    for chunk in bytes.chunks_exact_mut(32) {
        chunk[..8].copy_from_slice(&block.to_le_bytes());
        chunk[8..16].copy_from_slice(&generation.to_le_bytes());
        chunk[16..24].copy_from_slice(&(cpu as u64).to_le_bytes());
        let check = (block ^ generation << 32 ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chunk[24..].copy_from_slice(&check.to_le_bytes());
    }
}

fn write_blocks(disk: &str, cpu: usize, generation: u64, block_bytes: usize) -> Result<()> {
    let (disk, mut buffer) = (Direct::open(disk)?, Buffer::new(block_bytes));
    for block in blocks_of(cpu)? {
        stamp(block, generation, cpu, buffer.bytes());
        disk.write(&mut buffer, block * block_bytes as u64)
            .with_context(|| format!("block {block}"))?;
    }
    Ok(())
}

fn check_blocks(
    disk: &str,
    cpu: usize,
    writer: usize,
    generation: u64,
    block_bytes: usize,
) -> Result<()> {
    let (disk, mut buffer) = (Direct::open(disk)?, Buffer::new(block_bytes));
    let mut expected = vec![0; block_bytes];
    for block in blocks_of(writer)? {
        disk.read(&mut buffer, block * block_bytes as u64)
            .with_context(|| format!("block {block}"))?;
        stamp(block, generation, writer, &mut expected);
        if buffer.bytes() != expected {
            let found = buffer.bytes().get(..32).unwrap_or_default().to_vec();
            return Err(anyhow!(
                "CPU {cpu} read from block {block}, generation {generation} of CPU {writer}: {found:02x?}"
            ));
        }
    }
    Ok(())
}

fn every_queue_gets_the_requests_of_its_cpus() -> Result<()> {
    let device = Added::new("mem --size 16M --queues 4")?;
    let before = writes_by_queue(&device)?;
    ensure!(before.len() == 4, "{before:?}");
    let disk = device.block();
    on_every_cpu(move |cpu| write_blocks(&disk, cpu, 1, 512))?;
    let after = writes_by_queue(&device)?;
    let gained: Vec<u64> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before)
        .collect();
    ensure!(
        gained.iter().all(|writes| *writes == BLOCKS),
        "each CPU wrote {BLOCKS} blocks: {gained:?}"
    );
    device.delete()
}

fn writes_by_queue(device: &Added) -> Result<Vec<u64>> {
    let info = device.info()?;
    let queues = info["metrics"]["queues"]
        .as_array()
        .with_context(|| format!("no queues in {info}"))?;
    let writes = |queue: &serde_json::Value| {
        let operations = queue["operations"].as_array()?;
        operations
            .iter()
            .find(|operation| operation["operation"] == "write")?["requests"]
            .as_u64()
    };
    queues
        .iter()
        .map(|queue| writes(queue).with_context(|| format!("no writes in {queue}")))
        .collect()
}

fn more_queues_than_cpus_are_cut_to_the_cpus() -> Result<()> {
    let device = Added::new("mem --size 16M --queues 64")?;
    let possible = cpus()? as u64;
    ensure!(
        device.queues == possible,
        "{} queues on {possible} CPUs",
        device.queues
    );
    let disk = device.block();
    on_every_cpu(move |cpu| write_blocks(&disk, cpu, 1, 512))?;
    device.delete()
}
