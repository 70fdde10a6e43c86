//! Calls of etcd's API that this version does not serve: known by name, and refused with a text that says so.

/// Implements a service whose calls are refused, but for those written out after `but`.
macro_rules! refuse {
    (impl [$($generics:tt)*] $trait:ident [$($types:ident = $stream:ty)?] for $service:ty {
        $($method:ident: $request:ty => $response:ty, $name:literal;)*
    } but { $($own:tt)* }) => {
        #[tonic::async_trait]
        impl<$($generics)*> $trait for $service {
            $(type $types = $stream;)?
            $($own)*
            $(async fn $method(
                &self,
                _: tonic::Request<$request>,
            ) -> Result<tonic::Response<$response>, tonic::Status> {
                Err($crate::types::Error::Unsupported(concat!("henge: ", $name, " is not served by this version")).into())
            })*
        }
    };
}

pub(super) use refuse;
