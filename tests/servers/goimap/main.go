// An IMAP server in memory that lets anybody in.
package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"sync"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// session becomes a user's session with the login, which makes the account that is not there yet.
type session struct {
	*imapmemserver.UserSession
}

var (
	accounts = map[string]*imapmemserver.User{}
	mutex    sync.Mutex
)

func (s *session) Close() error {
	if s.UserSession == nil {
		return nil
	}
	return s.UserSession.Close()
}

func (s *session) Login(username, password string) error {
	mutex.Lock()
	defer mutex.Unlock()
	user := accounts[username]
	if user == nil {
		user = imapmemserver.NewUser(username, password)
		if err := user.Create("INBOX", nil); err != nil {
			return err
		}
		accounts[username] = user
	}
	if err := user.Login(username, password); err != nil {
		return err
	}
	s.UserSession = imapmemserver.NewUserSession(user)
	return nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: goimap ADDRESS:PORT")
		os.Exit(2)
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &session{}, nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}},
		InsecureAuth: true,
	})
	log.Fatal(server.Serve(listener))
}
