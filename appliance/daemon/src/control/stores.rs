//! `store init` and `store add`.

use std::io;
use std::path::Path;

use api::{
    ApiError, ByteLen, Changed, DevicePath, EventKind, LogSize, ScrubPolicy, Store, StoreAdd,
    StoreInit, StoreName, StoreState,
};
use bdev_uring::Allocation;
use cluster::{Desired, Expected, StoreRecord, store_key};
use uuid::Uuid;

use super::Control;
use crate::limits::DEVICE_BYTES_MIN;
use crate::probe::{Probe, probe};

impl Control {
    pub(super) async fn init_store(
        &self,
        request: StoreInit,
        id: &str,
    ) -> Result<Changed<Store>, ApiError> {
        let _guard = self.mutate().await?;
        let StoreInit { name, device, file_size, log_size, force_overwrite } = request;
        let desired = self.desired().await?;
        if let Some(kept) = desired.stores.get(&name) {
            let found = self.existing_store(&kept.record, &device, id).await?;
            return same_log(found, log_size);
        }
        refuse_device_in_use(&desired, &device)?;
        prepare(&device, file_size, log_size, force_overwrite).await?;
        let uuid = Uuid::new_v4();
        let store = self.plane.store_format(device.clone(), uuid, log_size).await?;
        if store.uuid != uuid {
            return Err(ApiError::internal("the data plane formatted another store"));
        }
        let record = StoreRecord { name, uuid, device, scrub: ScrubPolicy::default() };
        self.keep(&store_key(&record.name), Expected::Absent, Some(record.encode())).await?;
        let capacity = store.numbers.capacity;
        let message = format!("store {uuid} of {capacity} is written on {}", record.device);
        self.note(EventKind::StoreCreated, &record.name, message, id);
        let value = self.view().await?.describe_store(&record);
        Ok(Changed { value, changed: true })
    }

    pub(super) async fn add_store(
        &self,
        request: StoreAdd,
        id: &str,
    ) -> Result<Changed<Store>, ApiError> {
        let _guard = self.mutate().await?;
        let StoreAdd { name, device } = request;
        let desired = self.desired().await?;
        if let Some(kept) = desired.stores.get(&name) {
            return self.existing_store(&kept.record, &device, id).await;
        }
        refuse_device_in_use(&desired, &device)?;
        let store = self.plane.store_open(device.clone()).await?;
        let record = StoreRecord { name, uuid: store.uuid, device, scrub: ScrubPolicy::default() };
        self.keep(&store_key(&record.name), Expected::Absent, Some(record.encode())).await?;
        let message = format!("store {} is open on {}", record.uuid, record.device);
        self.note(EventKind::StoreOpened, &record.name, message, id);
        // It may bring volumes along.
        self.reconcile().await?;
        let value = self.view().await?.describe_store(&record);
        Ok(Changed { value, changed: true })
    }

    /// Asked for what is already there: fine if it is the same; opened again if it had failed.
    async fn existing_store(
        &self,
        record: &StoreRecord,
        device: &DevicePath,
        id: &str,
    ) -> Result<Changed<Store>, ApiError> {
        if record.device != *device {
            return Err(ApiError::AlreadyExists {
                what: "store".to_owned(),
                name: record.name.to_string(),
                difference: format!("it is on {}", record.device),
            });
        }
        let closed = self.troubles().stores.remove(&record.name).is_some();
        let failed = closed || self.close_failed(record).await?;
        if failed {
            self.reconcile().await?;
            if let Some(reason) = self.troubles().stores.get(&record.name).cloned() {
                let hint = "repair the device, then add the store again";
                return Err(ApiError::precondition(reason, hint));
            }
            let message = format!("store {} is open again on {device}", record.uuid);
            self.note(EventKind::StoreOpened, &record.name, message, id);
        }
        let value = self.view().await?.describe_store(record);
        Ok(Changed { value, changed: failed })
    }

    /// Closes a store whose device failed while it was open, so that it can be opened again. Its
    /// hosts, which see nothing but errors, are disconnected until then.
    async fn close_failed(&self, record: &StoreRecord) -> Result<bool, ApiError> {
        let view = self.view().await?;
        let open = view.stores.get(&record.uuid);
        if open.is_none_or(|store| store.failure.is_empty()) {
            return Ok(false);
        }
        for export in view.exports.into_values().filter(|export| export.store == record.uuid) {
            self.plane.export_remove(export.volume).await?;
        }
        self.plane.store_close(record.uuid).await?;
        self.troubles().failed.remove(&record.name);
        Ok(true)
    }

    /// Opens a recorded store, and makes sure that it is the recorded one.
    pub(super) async fn open_store(&self, record: &StoreRecord) -> Result<(), ApiError> {
        let store = self.plane.store_open(record.device.clone()).await?;
        if store.uuid == record.uuid {
            return Ok(());
        }
        self.plane.store_close(store.uuid).await?;
        let reason = format!(
            "{} holds store {}, but {} was added under this name",
            record.device, store.uuid, record.uuid
        );
        Err(ApiError::precondition(reason, "is it the right disk?"))
    }

    /// The store that a request means.
    pub(super) fn choose_store<'d>(
        desired: &'d Desired,
        wanted: Option<&StoreName>,
    ) -> Result<&'d StoreRecord, ApiError> {
        if let Some(name) = wanted {
            let kept = desired.stores.get(name);
            return Ok(&kept.ok_or_else(|| ApiError::not_found("store", name))?.record);
        }
        let mut all = desired.stores.values();
        match (all.next(), all.next()) {
            (Some(only), None) => Ok(&only.record),
            (None, _) => {
                let hint = "write one first with: holdfast store init NAME --device PATH";
                Err(ApiError::precondition("there is no store", hint))
            }
            (Some(_), Some(_)) => {
                let names: Vec<_> = desired.stores.keys().map(StoreName::as_str).collect();
                let reason = format!("there are several stores: {}", names.join(", "));
                Err(ApiError::invalid("store", reason, "name the store"))
            }
        }
    }
}

/// A log keeps the size that it was made with.
fn same_log(found: Changed<Store>, wanted: Option<LogSize>) -> Result<Changed<Store>, ApiError> {
    let Store { name, log_size, state, .. } = &found.value;
    if wanted.is_none_or(|wanted| wanted.len() == *log_size) || *state == StoreState::Offline {
        return Ok(found);
    }
    Err(ApiError::AlreadyExists {
        what: "store".to_owned(),
        name: name.to_string(),
        difference: format!("its log has {log_size}"),
    })
}

fn refuse_device_in_use(desired: &Desired, device: &DevicePath) -> Result<(), ApiError> {
    let real = |path: &DevicePath| std::fs::canonicalize(path.as_str()).ok();
    let wanted = real(device);
    let same = |record: &StoreRecord| {
        record.device == *device || (wanted.is_some() && real(&record.device) == wanted)
    };
    match desired.stores.values().find(|kept| same(&kept.record)) {
        None => Ok(()),
        Some(kept) => {
            let reason = format!("{device} is used by store {:?}", kept.record.name.as_str());
            Err(ApiError::precondition(reason, "give another device"))
        }
    }
}

/// Makes sure that a store may be written to `device`: it exists, is large enough, and holds
/// nothing that anybody could miss.
async fn prepare(
    device: &DevicePath,
    file_size: Option<ByteLen>,
    log_size: Option<LogSize>,
    force_overwrite: bool,
) -> Result<(), ApiError> {
    let device = device.clone();
    let work = move || prepare_now(&device, file_size, log_size, force_overwrite);
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?
}

fn prepare_now(
    device: &DevicePath,
    file_size: Option<ByteLen>,
    log_size: Option<LogSize>,
    force_overwrite: bool,
) -> Result<(), ApiError> {
    let path = Path::new(device.as_str());
    if let Some(size) = file_size {
        create_file(path, size)?;
    }
    let Probe { size, found } = probe(path).map_err(|error| cannot_open(device, &error))?;
    if size < DEVICE_BYTES_MIN {
        let reason = format!("{device} has only {size} bytes");
        let hint = format!("a store needs at least {}", ByteLen::from_bytes(DEVICE_BYTES_MIN));
        return Err(ApiError::invalid("device", reason, hint));
    }
    let log = log_size.map_or(0, |log| log.len().bytes());
    if log > size / 2 {
        let (log, half) = (ByteLen::from_bytes(log), ByteLen::from_bytes(size / 2));
        let reason = format!("a log of {log} is more than half of {device}");
        return Err(ApiError::invalid("log_size", reason, format!("ask for at most {half}")));
    }
    if found.is_empty() || force_overwrite {
        return Ok(());
    }
    let what = found.join(", ");
    let hint = if what.contains("a Holdfast store") {
        "open it with: holdfast store add; or destroy it with --force-overwrite"
    } else {
        "give another device, or destroy what is there with --force-overwrite"
    };
    Err(ApiError::precondition(format!("{device} is not empty: it holds {what}"), hint))
}

/// Creates the file, unless it is there in this size (from an attempt that was interrupted).
fn create_file(path: &Path, size: ByteLen) -> Result<(), ApiError> {
    let failed = |error: io::Error| {
        let reason = format!("{} cannot be created: {error}", path.display());
        ApiError::invalid("device", reason, "does the directory exist, and may holdfastd write it?")
    };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == size.bytes() => Ok(()),
        Ok(metadata) => {
            let found = metadata.len();
            let reason = format!("{} exists and has {found} bytes", path.display());
            Err(ApiError::invalid("size", reason, "leave the size out to use it as it is"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bdev_uring::create_file(path, size.bytes(), Allocation::Sparse).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn cannot_open(device: &DevicePath, error: &io::Error) -> ApiError {
    match error.kind() {
        io::ErrorKind::NotFound => ApiError::invalid(
            "device",
            format!("{device} does not exist on the node"),
            "give --size to create a file",
        ),
        io::ErrorKind::ResourceBusy => ApiError::precondition(
            format!("{device} is in use: mounted, or part of an array or a volume group"),
            "release it first",
        ),
        _ => ApiError::invalid("device", format!("{device} cannot be opened: {error}"), ""),
    }
}
