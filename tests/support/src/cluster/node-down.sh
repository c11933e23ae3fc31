#!/bin/sh
# Ends what a node of the tests may have left: containers, mounts, network. Finds only what carries the node's own names,
# and may run when there is nothing.
state=/run/mailferry-node

# A container's first process takes all others of its PID namespace with it.
for file in "$state"/io.containerd.runtime.v2.task/k8s.io/*/init.pid; do
  [ -e "$file" ] || continue
  pid=$(cat "$file")
  grep -q kubepods "/proc/$pid/cgroup" 2>/dev/null && kill -s KILL "$pid"
done
# A shim carries the path of its containerd's socket.
for process in /proc/[0-9]*; do
  case $(tr '\0' ' ' <"$process/cmdline" 2>/dev/null) in
    *containerd-shim-runc-v2\ *"$state"/*) kill -s KILL "${process#/proc/}" ;;
  esac
done 2>/dev/null

awk '{ print $2 }' /proc/mounts | grep -E "^($state|/tmp/mailferry-node-)" | sort -r | while read -r mount; do
  umount -l "$mount"
done

ip link delete mailferry0 2>/dev/null
for family in ip ip6; do nft delete table $family kube-proxy 2>/dev/null; done
nft delete table ip mailferry-test 2>/dev/null
rm -f /var/lib/cni/results/mailferry-*
[ -e "$state/ip_forward" ] && cat "$state/ip_forward" >/proc/sys/net/ipv4/ip_forward

# Where kubelet links each container's log.
find /var/log/containers -lname '/tmp/mailferry-node-*' -delete 2>/dev/null
for cgroup in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do
  [ -d "$cgroup" ] && find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null
done
rm -rf "$state" /tmp/mailferry-node-*
