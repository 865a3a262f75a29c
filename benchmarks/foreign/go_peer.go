// Go's net/http as a peer; see benchmarks/_python_peer.py for the orders.
//
// Pinned in tls.Config.VerifyConnection, which is called on resumed connections too. Sessions are resumed only with a
// ClientSessionCache, which a program has to ask for: the variant "session cache" does.
package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

type order struct {
	Peer, URL, Roots, Kind string
	Pinned                 bool
	Pins                   []string
	Requests, Concurrency  int
	First                  *int
}

func client(config order, cold bool) *http.Client {
	pem, err := os.ReadFile(config.Roots)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	settings := &tls.Config{RootCAs: roots}
	if strings.Contains(config.Peer, ", session cache") {
		settings.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	if config.Pinned {
		settings.VerifyConnection = func(state tls.ConnectionState) error {
			for _, chain := range state.VerifiedChains {
				for _, certificate := range chain {
					digest := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
					text := "sha256/" + base64.StdEncoding.EncodeToString(digest[:])
					for _, pin := range config.Pins {
						if pin == text {
							return nil
						}
					}
				}
			}
			return errors.New("pin mismatch")
		}
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: settings, DisableKeepAlives: cold, MaxIdleConnsPerHost: 100, MaxConnsPerHost: 100,
	}}
}

func get(client *http.Client, url string) (string, error) {
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != 200 || len(body) != 100 {
		return "", fmt.Errorf("status %d and %d bytes, not 200 and 100", response.StatusCode, len(body))
	}
	return response.Header.Get("X-Resumed"), nil
}

func now() (float64, float64) {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e3, float64(time.Now().UnixNano()) / 1e3
}

func sample(client *http.Client, config, what order) map[string]interface{} {
	concurrency := what.Concurrency
	if concurrency == 0 {
		concurrency = 1
	}
	first := 2 * concurrency
	if what.First != nil {
		first = *what.First
	}
	var lock sync.Mutex
	var group sync.WaitGroup
	var cpu0, wall0, cpu1, wall1 float64
	started, done, resumed := 0, 0, 0
	own := []float64{}
	runtime.GC()
	work := func() {
		defer group.Done()
		for {
			lock.Lock()
			if started >= first+what.Requests {
				lock.Unlock()
				return
			}
			started++
			lock.Unlock()
			sent := time.Now()
			how, err := get(client, config.URL)
			if err != nil {
				panic(err)
			}
			lock.Lock()
			done++
			if done == first {
				cpu0, wall0 = now()
			} else if done > first {
				own = append(own, float64(time.Since(sent).Nanoseconds())/1e3)
				if how == "r" {
					resumed++
				}
			}
			if done == first+what.Requests {
				cpu1, wall1 = now()
			}
			lock.Unlock()
		}
	}
	for i := 0; i < concurrency; i++ {
		group.Add(1)
		go work()
	}
	group.Wait()
	n := float64(what.Requests)
	return map[string]interface{}{
		"cpu": (cpu1 - cpu0) / n, "wall": (wall1 - wall0) / n, "resumed": float64(resumed) / n, "own": own,
	}
}

func probe(config order, line []byte) map[string]interface{} {
	if err := json.Unmarshal(line, &config); err != nil {
		panic(err)
	}
	if _, err := get(client(config, true), config.URL); err != nil {
		return map[string]interface{}{"accepted": false, "error": err.Error()}
	}
	return map[string]interface{}{"accepted": true, "error": ""}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	answers := json.NewEncoder(os.Stdout)
	var config order
	lines.Scan()
	if err := json.Unmarshal(lines.Bytes(), &config); err != nil {
		panic(err)
	}
	clients := map[string]*http.Client{}
	answers.Encode(map[string]string{"go": runtime.Version()})
	for lines.Scan() {
		var what order
		if err := json.Unmarshal(lines.Bytes(), &what); err != nil {
			panic(err)
		}
		if what.Kind == "probe" {
			answers.Encode(probe(config, lines.Bytes()))
			continue
		}
		if clients[what.Kind] == nil {
			clients[what.Kind] = client(config, what.Kind == "cold")
		}
		answers.Encode(sample(clients[what.Kind], config, what))
	}
}
