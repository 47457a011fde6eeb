//! Which commands there are, and what they may change: one table for each kind of queue. Whether a
//! command is taken and what the effects log says of it cannot differ.

use nvme_spec::{NvmeStatus, StatusCode, effects, opcode};

/// A command: its opcode, and its bits of the effects log beside the one that says it is supported.
type Row = (u8, u32);

/// Commands of the admin queue of an I/O controller, in the order of their opcodes.
pub(crate) const ADMIN: &[Row] = &[
    (opcode::admin::GET_LOG_PAGE, 0),
    (opcode::admin::IDENTIFY, 0),
    (opcode::admin::ABORT, 0),
    (opcode::admin::SET_FEATURES, 0),
    (opcode::admin::GET_FEATURES, 0),
    (opcode::admin::ASYNC_EVENT, 0),
    (opcode::admin::KEEP_ALIVE, 0),
    (opcode::admin::CROSS_CONTROLLER_RESET, 0),
];

/// Commands of I/O queues, in the order of their opcodes.
pub(crate) const IO: &[Row] = &[
    (opcode::nvm::FLUSH, 0),
    (opcode::nvm::WRITE, effects::BLOCKS_CHANGE),
    (opcode::nvm::READ, 0),
    (opcode::nvm::COMPARE, 0),
    (opcode::nvm::WRITE_ZEROES, effects::BLOCKS_CHANGE),
    (opcode::nvm::DATASET_MANAGEMENT, effects::BLOCKS_CHANGE),
    (opcode::nvm::VERIFY, 0),
    (opcode::nvm::RESERVATION_REGISTER, 0),
    (opcode::nvm::RESERVATION_REPORT, 0),
    (opcode::nvm::RESERVATION_ACQUIRE, 0),
    (opcode::nvm::RESERVATION_RELEASE, 0),
    (opcode::nvm::COPY, effects::BLOCKS_CHANGE),
];

/// Refuses what is not in the table.
//= NVMe-Base 2.1 §4.2.3
//# an opcode that is not supported is an invalid opcode, however often it is tried
pub(crate) fn check(table: &[Row], opcode: u8) -> Result<(), NvmeStatus> {
    let known = table.iter().any(|row| row.0 == opcode);
    if known { Ok(()) } else { Err(NvmeStatus::never(StatusCode::INVALID_OPCODE)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_none_is_there_twice() {
        for table in [ADMIN, IO] {
            assert!(table.is_sorted_by_key(|row| row.0));
            assert!(table.windows(2).all(|pair| pair[0].0 != pair[1].0));
        }
    }
}
