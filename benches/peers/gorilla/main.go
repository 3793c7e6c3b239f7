// An echo with gorilla/websocket on 127.0.0.1: gorilla PORT BUFFER_BYTES [deflate]. GOMAXPROCS=1 makes it one thread.
//
// Its documentation advises buffers of the size of the messages that are expected, and a pool of those for writing.
package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync"

	"github.com/gorilla/websocket"
)

func echo(socket *websocket.Conn) error {
	for {
		kind, reader, err := socket.NextReader()
		if err != nil {
			return err
		}
		writer, err := socket.NextWriter(kind)
		if err != nil {
			return err
		}
		if _, err := io.Copy(writer, reader); err != nil {
			return err
		}
		if err := writer.Close(); err != nil {
			return err
		}
	}
}

func main() {
	buffer, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	upgrader := websocket.Upgrader{
		ReadBufferSize:    buffer,
		WriteBufferSize:   buffer,
		WriteBufferPool:   &sync.Pool{},
		CheckOrigin:       func(*http.Request) bool { return true },
		EnableCompression: len(os.Args) > 3 && os.Args[3] == "deflate",
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		socket, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer socket.Close()
		// Any error ends the connection, as does a Close frame.
		_ = echo(socket)
	})))
}
