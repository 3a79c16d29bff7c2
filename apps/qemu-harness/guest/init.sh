#!/bin/sh
# The first process of the guest. It mounts what a Linux process expects, reserves huge pages for DMA, loads the modules
# of VFIO and hands over to the agent. Stages and failures go to the host as JSON lines on the second serial port.
export PATH=/bin:/usr/bin HOME=/root TERM=dumb NODE_NO_WARNINGS=1

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm /dev/hugepages
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t hugetlbfs hugetlbfs /dev/hugepages

channel=$guest_channel
stty -F $channel raw -echo

# say <type> <key> <value>: one message to the host. The text may hold no quotes.
say() {
  up=$(cut -d " " -f 1 /proc/uptime)
  echo "{\"type\":\"$1\",\"$2\":\"$3\",\"uptime\":$up}" > $channel
}

say stage stage init
hostname guest
ifconfig lo up

want=${guest_hugepages:-0}
if [ "$want" -gt 0 ]; then
  echo "$want" > /proc/sys/vm/nr_hugepages
  got=$(cat /proc/sys/vm/nr_hugepages)
  [ "$got" -eq "$want" ] || say warning text "only $got of $want huge pages could be reserved; give the guest more memory"
fi

# VFIO has nothing to do without an IOMMU.
if [ -n "$(ls /sys/class/iommu 2> /dev/null)" ]; then
  for module in vfio_iommu_type1 vfio-pci; do
    error=$(modprobe "$module" 2>&1) || say warning text "the kernel module $module could not be loaded: $(echo "$error" | tr -d '"\\' | tr '\n' ' ')"
  done
fi

# A processor whose timer was lost at boot hangs every process that sleeps on it. So each proves that its timer fires. This shell
# must not sleep meanwhile, as it may be on such a processor.
now() {
  read -r seconds _ < /proc/uptime
  seconds=${seconds%.*}
}
processors=$(seq 0 $(($(nproc) - 1)))
for cpu in $processors; do
  mask=$(printf %x $((1 << cpu)))
  (taskset "$mask" usleep 20000 && taskset "$mask" usleep 20000 && : > /tmp/timer$cpu) &
done
now
deadline=$((seconds + 10))
for cpu in $processors; do
  until [ -e /tmp/timer$cpu ]; do
    now
    if [ "$seconds" -ge "$deadline" ]; then
      dmesg > /dev/console
      say broken text "the timer of processor $cpu does not fire"
      while :; do :; done
    fi
  done
done
rm -f /tmp/timer*

say stage stage node
node /guest/agent.mjs < $channel
status=$?
[ $status -eq 0 ] || say agent-died status "$status"
sync
poweroff -f
