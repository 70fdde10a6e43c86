package main

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

// Messages that are bytes already: the client library has no stubs of the services of locks and elections.
type raw struct{}

func (raw) Marshal(message any) ([]byte, error) { return message.([]byte), nil }

func (raw) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = data
	return nil
}

func (raw) Name() string { return "proto" }

// A message of a bytes field 1 and, unless it is 0, an integer field 2.
func message(text string, number int64) []byte {
	encoded := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte(text))
	if number == 0 {
		return encoded
	}
	return protowire.AppendVarint(protowire.AppendTag(encoded, 2, protowire.VarintType), uint64(number))
}

// The bytes field 2 of a message.
func second(encoded []byte) string {
	for len(encoded) > 0 {
		number, kind, length := protowire.ConsumeTag(encoded)
		encoded = encoded[length:]
		if number == 2 && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(encoded)
			return string(value)
		}
		encoded = encoded[protowire.ConsumeFieldValue(number, kind, encoded):]
	}
	return ""
}

// Calls the service of locks: the answer, and its metadata.
func (w world) lockService(method string, request []byte) ([]byte, metadata.MD, error) {
	var (
		reply []byte
		said  metadata.MD
	)
	err := w.ActiveConnection().Invoke(w, "/v3lockpb.Lock/"+method, request, &reply, grpc.ForceCodec(raw{}), grpc.Header(&said))
	return reply, said, err
}
