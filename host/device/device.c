/* devices of a context: opened when first asked for, poisoned by what they do not survive */
#include "device/device.h"

#include <stdio.h>
#include <string.h>

#include "device/context.h"

const micah_device_ops *micah_device_kind(int backend) {
  return backend == MICA_CUDA ? &micah_cuda_ops : &micah_cpu_ops;
}

mica_status micah_context_device(mica_context *context, int backend, int32_t index, micah_device **out) {
  const micah_device_ops *ops = micah_device_kind(backend);
  micah_device_list *list = micah_context_devices(context);
  *out = NULL;
  if (index < 0 || index >= MICAH_MAX_DEVICES)
    return mica_error(MICA_ERR_NOT_FOUND, "no device %s:%d", ops->name, index);
  micah_device **place = &list->item[backend == MICA_CUDA][index];
  mica_status status = MICA_OK;
  pthread_mutex_lock(&list->lock);
  if (!*place) {
    micah_device *device = micah_alloc(context, sizeof *device, "a device");
    if (!device) status = MICA_ERR_MEMORY;
    else {
      memset(device, 0, sizeof *device);
      device->ops = ops, device->context = context, device->index = index;
      pthread_mutex_init(&device->lock, NULL);
      status = ops->open(device);
      if (status >= 0) *place = device;
      else {
        pthread_mutex_destroy(&device->lock);
        micah_free(context, device, sizeof *device);
      }
    }
  }
  *out = *place;
  pthread_mutex_unlock(&list->lock);
  return status;
}

void micah_devices_close(mica_context *context) {
  micah_device_list *list = micah_context_devices(context);
  for (int kind = 0; kind < 2; kind++)
    for (int32_t i = 0; i < MICAH_MAX_DEVICES; i++) {
      micah_device *device = list->item[kind][i];
      if (!device) continue;
      device->ops->close(device);
      pthread_mutex_destroy(&device->lock);
      micah_free(context, device, sizeof *device);
    }
}

mica_status micah_twin_create(micah_device *device, size_t bytes, const char *what, micah_twin *out) {
  *out = (micah_twin){ .owner = device, .bytes = bytes };
  mica_status status = device->ops->alloc_host(device, bytes, what, &out->host);
  if (status >= 0 && device->ops->backend == MICA_CPU) out->device = out->host;
  else if (status >= 0) status = device->ops->alloc(device, bytes, what, &out->device);
  if (status < 0) micah_twin_destroy(out);
  return status;
}

void micah_twin_destroy(micah_twin *twin) {
  if (!twin->owner) return;
  const micah_device_ops *ops = twin->owner->ops;
  if (twin->device != twin->host) ops->free(twin->owner, twin->device, twin->bytes);
  if (twin->host) ops->free_host(twin->owner, twin->host, twin->bytes);
  *twin = (micah_twin){ .owner = NULL };
}

mica_status micah_twin_send(const micah_twin *twin, void *stream, size_t bytes) {
  if (twin->device == twin->host) return MICA_OK;
  return twin->owner->ops->copy(twin->owner, stream, twin->device, twin->host, bytes);
}

mica_status micah_twin_fetch(const micah_twin *twin, void *stream, size_t bytes) {
  if (twin->device == twin->host) return MICA_OK;
  return twin->owner->ops->copy(twin->owner, stream, twin->host, twin->device, bytes);
}

mica_status micah_device_poison(micah_device *device) {
  pthread_mutex_lock(&device->lock);
  if (device->poison >= 0) {
    device->poison = MICA_ERR_DEVICE;
    snprintf(device->message, sizeof device->message, "%s", mica_last_error());
  }
  pthread_mutex_unlock(&device->lock);
  return MICA_ERR_DEVICE;
}

mica_status micah_device_alive(micah_device *device) {
  pthread_mutex_lock(&device->lock);
  mica_status status = device->poison;
  pthread_mutex_unlock(&device->lock);
  if (status >= 0) return MICA_OK;
  return mica_error(MICA_ERR_DEVICE, "device %s:%d is out of use in this context since an earlier failure: %s",
                    device->ops->name, device->index, device->message);  /* written once, before poison */
}
