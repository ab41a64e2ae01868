//! The services as the gateway sees them: the live catalogue, its routes, and the way to call one. `Runtime` implements it, and so do
//! the fakes of the gateway's tests.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use echo_base::names::ServiceName;
use echo_capabilities::context::CallContext;
use echo_runtime::route_settings::OutsidePrefix;
use echo_runtime::{CallError, CallTarget, Catalogue, Input, Reply, RouteEntry, Runtime};

/// The live services. A type parameter and no trait object, so that a call needs no boxed future.
pub trait Services: Send + Sync + 'static {
    type Snapshot: Snapshot;

    fn pin(&self) -> Arc<Self::Snapshot>;

    fn call(
        &self,
        snapshot: &Arc<Self::Snapshot>,
        target: &CallTarget,
        input: Input<'_>,
        context: Arc<CallContext>,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send;
}

/// What is live at one moment; two with the same number are the same.
pub trait Snapshot: Send + Sync + 'static {
    fn number(&self) -> u64;
    fn routes(&self) -> &[RouteEntry];
    /// Prefixes of the operator's whose requests go to outside services.
    fn outside(&self) -> &[Arc<OutsidePrefix>];
    fn openapi(&self) -> Bytes;
    fn asyncapi(&self) -> Bytes;
    fn services(&self) -> Vec<ServiceName>;
    /// The operator has switched it off.
    fn is_off(&self, service: &ServiceName) -> bool;
}

impl Services for Runtime {
    type Snapshot = Catalogue;

    fn pin(&self) -> Arc<Catalogue> {
        Runtime::pin(self)
    }

    fn call(
        &self,
        snapshot: &Arc<Catalogue>,
        target: &CallTarget,
        input: Input<'_>,
        context: Arc<CallContext>,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send {
        Runtime::call(self, snapshot, target, input, context)
    }
}

impl Snapshot for Catalogue {
    fn number(&self) -> u64 {
        self.number
    }

    fn routes(&self) -> &[RouteEntry] {
        Catalogue::routes(self)
    }

    fn outside(&self) -> &[Arc<OutsidePrefix>] {
        Catalogue::outside(self)
    }

    fn openapi(&self) -> Bytes {
        Catalogue::openapi(self)
    }

    fn asyncapi(&self) -> Bytes {
        Catalogue::asyncapi(self)
    }

    fn services(&self) -> Vec<ServiceName> {
        Catalogue::services(self)
    }

    fn is_off(&self, service: &ServiceName) -> bool {
        Catalogue::is_off(self, service.as_str())
    }
}
