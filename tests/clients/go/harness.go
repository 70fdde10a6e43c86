package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// What a test has: a context that ends after a while, and a client of its own.
type world struct {
	context.Context
	*clientv3.Client
}

type test struct {
	name string
	run  func(w world)
}

// Ends the test, which reports the text.
func fail(format string, arguments ...any) {
	panic(fmt.Sprintf(format, arguments...))
}

func same[T comparable](what string, actual, expected T) {
	if actual != expected {
		fail("%s: expected %v, got %v", what, expected, actual)
	}
}

// The value, unless there is an error.
func must[T any](value T, err error) T {
	if err != nil {
		fail("%v", err)
	}
	return value
}

func refused(part string, err error) {
	if err == nil || !strings.Contains(err.Error(), part) {
		fail("expected an error with %q, got %v", part, err)
	}
}

// Runs server.sh: start, stop or restart.
func server(command string) {
	if output, err := exec.Command(os.Getenv("INTEROP_SERVER"), command).CombinedOutput(); err != nil {
		fail("server.sh %s: %v: %s", command, err, output)
	}
}

func connect() *clientv3.Client {
	return must(clientv3.New(clientv3.Config{
		Endpoints:   []string{os.Getenv("INTEROP_ENDPOINT")},
		DialTimeout: 10 * time.Second,
		TLS:         secrets(),
		Username:    os.Getenv("INTEROP_USER"),
		Password:    os.Getenv("INTEROP_PASSWORD"),
	}))
}

// Whom to trust and what to show, if the server speaks TLS.
func secrets() *tls.Config {
	ca := os.Getenv("INTEROP_CACERT")
	if ca == "" {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(must(os.ReadFile(ca))) {
		fail("no certificate in %s", ca)
	}
	own := must(tls.LoadX509KeyPair(os.Getenv("INTEROP_CERT"), os.Getenv("INTEROP_KEY")))
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{own}}
}

func (t test) report() (ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client := connect()
	defer client.Close()
	defer func() {
		if text := recover(); text != nil {
			fmt.Printf("FAIL %s  %s\n     %v\n", os.Getenv("INTEROP_CLIENT"), t.name, text)
		}
	}()
	t.run(world{ctx, client})
	fmt.Printf("ok   %s  %s\n", os.Getenv("INTEROP_CLIENT"), t.name)
	return true
}

func main() {
	status := 0
	for _, t := range tests {
		if !t.report() {
			status = 1
		}
	}
	os.Exit(status)
}
