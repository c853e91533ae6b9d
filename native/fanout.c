/* The same bytes to many sockets in one call.
 *
 * A `Writer` is one connection's way out: called like the `write` of its stream, and it knows the file descriptor. A `Sender` takes bytes and objects
 * with a `write`: to each `Writer` whose stream has nothing queued it sends directly, to all of them in one submission (io_uring, Linux 6.1 or newer)
 * or with send() in a loop; everything else is called as it is. What the kernel did not take goes to the stream, which owns buffering, errors and
 * flow control: nothing of that is repeated here.
 *
 * Not here: which sockets get what, and what is done about slow ones.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>
#include <sys/socket.h>
#include "ring.h"

#ifdef MSG_NOSIGNAL
#define FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)
#else
#define FLAGS MSG_DONTWAIT /* macOS: both loops set SO_NOSIGPIPE, or ignore the signal, as CPython does */
#endif

static PyObject *str_write, *str_queued;

/* — Writer — */

typedef struct {
  PyObject_HEAD
  PyObject *stream;
  vectorcallfunc call;
  int fd; /* -1: closed, everything goes to the stream */
  char state;
} Writer;

enum {
  CLEAR,  /* nothing of this connection waits anywhere */
  GIVEN,  /* the stream was given something, and may not be through with it */
  CHOSEN, /* a send is in the batch that is being put together */
};

static PyTypeObject WriterType;

static PyObject *give_stream(Writer *self, PyObject *data) {
  if (self->stream == NULL) Py_RETURN_NONE; /* the garbage collector was here */
  self->state = GIVEN;
  PyObject *arguments[] = {self->stream, data};
  return PyObject_VectorcallMethod(str_write, arguments, 2, NULL);
}

static PyObject *writer_call(PyObject *self, PyObject *const *arguments, size_t flags, PyObject *names) {
  if (PyVectorcall_NARGS(flags) != 1 || names != NULL) {
    PyErr_SetString(PyExc_TypeError, "a Writer takes one argument: the bytes to send");
    return NULL;
  }
  return give_stream((Writer *)self, arguments[0]);
}

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"stream", "fd", NULL};
  PyObject *stream;
  int fd;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oi", names, &stream, &fd)) return NULL;
  Writer *self = (Writer *)type->tp_alloc(type, 0);
  if (self == NULL) return NULL;
  self->stream = Py_NewRef(stream);
  self->call = writer_call;
  self->fd = fd;
  self->state = GIVEN; /* the answer to the handshake, say */
  return (PyObject *)self;
}

static int writer_traverse(Writer *self, visitproc visit, void *arg) {
  Py_VISIT(self->stream);
  return 0;
}

static int writer_clear(Writer *self) {
  self->fd = -1;
  Py_CLEAR(self->stream);
  return 0;
}

static void writer_dealloc(Writer *self) {
  PyObject_GC_UnTrack(self);
  writer_clear(self);
  Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *writer_close(Writer *self, PyObject *Py_UNUSED(nothing)) {
  self->fd = -1;
  Py_RETURN_NONE;
}

/* Looks whether the stream is through with what it was given; -1: an exception. */
static int look_again(Writer *self) {
  PyObject *queued = PyObject_CallMethodNoArgs(self->stream, str_queued);
  if (queued == NULL) return -1;
  int waits = PyObject_IsTrue(queued);
  Py_DECREF(queued);
  if (waits == 0) self->state = CLEAR;
  return waits < 0 ? -1 : 0;
}

static PyMethodDef writer_methods[] = {
    {"close", (PyCFunction)writer_close, METH_NOARGS, "The file descriptor is about to go: from now on everything is the stream's."},
    {NULL},
};

static PyMemberDef writer_members[] = {
    {"fd", T_INT, offsetof(Writer, fd), READONLY, "The socket's file descriptor; -1 once closed."},
    {NULL},
};

static PyTypeObject WriterType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "aibos_realtime.transport.compiled.Writer",
    .tp_doc = "Writer(stream, fd): one connection's way out. Calling it with bytes is calling `stream.write`.",
    .tp_basicsize = sizeof(Writer),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Writer, call),
    .tp_call = PyVectorcall_Call,
    .tp_new = writer_new,
    .tp_dealloc = (destructor)writer_dealloc,
    .tp_traverse = (traverseproc)writer_traverse,
    .tp_clear = (inquiry)writer_clear,
    .tp_methods = writer_methods,
    .tp_members = writer_members,
};

/* — Sender — */

enum {
  BATCH = 1024,
  FEW = 8, /* for so few the ring costs more than it saves */
};

typedef struct {
  PyObject_HEAD
  Ring ring;
  int count;
  char is_busy;
  Writer *writers[BATCH];
  int results[BATCH]; /* bytes taken by the kernel, or -errno */
} Sender;

static void send_each(Sender *self, const char *data, size_t size) {
  for (int i = 0; i < self->count; i++) {
    ssize_t taken;
    do taken = send(self->writers[i]->fd, data, size, FLAGS);
    while (taken < 0 && errno == EINTR);
    self->results[i] = taken < 0 ? -errno : (int)taken;
  }
}

static void send_together(Sender *self, const char *data, size_t size) {
  for (int i = 0; i < self->count; i++) ring_put_send(&self->ring, i, self->writers[i]->fd, data, size, FLAGS);
  ring_finish(&self->ring, self->count, self->results);
}

/* Notes that a function is to be called with bytes once all batches are out. -1: an exception. */
static int call_later(PyObject *calls, PyObject *function, PyObject *data) {
  if (PyList_Append(calls, function) < 0) return -1;
  if (PyList_Append(calls, data) == 0) return 0;
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyList_SetSlice(calls, PyList_GET_SIZE(calls) - 1, PyList_GET_SIZE(calls), NULL); /* they are pairs */
  PyErr_Restore(type, value, traceback);
  return -1;
}

/* Calls what was noted, all of it, whatever goes wrong with one: half of a frame may be out, and the rest has to follow. Keeps the first exception. */
static int call_all(PyObject *calls, int failed) {
  PyObject *type = NULL, *value = NULL, *traceback = NULL;
  if (failed) PyErr_Fetch(&type, &value, &traceback);
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(calls); i += 2) {
    PyObject *done = PyObject_CallOneArg(PyList_GET_ITEM(calls, i), PyList_GET_ITEM(calls, i + 1));
    if (done == NULL && !failed) PyErr_Fetch(&type, &value, &traceback);
    else if (done == NULL) PyErr_Clear();
    failed = failed || done == NULL ? -1 : 0;
    Py_XDECREF(done);
  }
  if (failed) PyErr_Restore(type, value, traceback);
  return failed;
}

/* Sends the batch; what the kernel did not take goes to `calls`. -1: an exception. */
static int send_batch(Sender *self, PyObject *data, PyObject *calls) {
  const char *bytes = PyBytes_AS_STRING(data);
  Py_ssize_t size = PyBytes_GET_SIZE(data);
  int failed = 0;
  Py_BEGIN_ALLOW_THREADS
  if (ring_is_open(&self->ring) && self->count >= FEW) send_together(self, bytes, (size_t)size);
  else send_each(self, bytes, (size_t)size);
  Py_END_ALLOW_THREADS
  for (int i = 0; i < self->count; i++) {
    Writer *writer = self->writers[i];
    writer->state = CLEAR;
    if (self->results[i] != size) {
      int taken = self->results[i] > 0 ? self->results[i] : 0; /* on an error the stream tries all of it, and meets the same error */
      PyObject *rest = taken == 0 ? Py_NewRef(data) : PyBytes_FromStringAndSize(bytes + taken, size - taken);
      if (rest == NULL || call_later(calls, (PyObject *)writer, rest) < 0) {
        failed = -1;
        if (taken > 0) shutdown(writer->fd, SHUT_RDWR); /* no memory for the rest: nothing may follow half of a frame */
      }
      writer->state = GIVEN;
      Py_XDECREF(rest);
    }
    Py_DECREF(writer);
  }
  self->count = 0;
  return failed;
}

/* Takes one receiver: into the batch, or, if its stream has something queued or it is no Writer, to `calls`. -1: an exception. */
static int take(Sender *self, PyObject *write, PyObject *data, PyObject *calls) {
  if (!Py_IS_TYPE(write, &WriterType)) return call_later(calls, write, data);
  Writer *writer = (Writer *)write;
  if (writer->state == CHOSEN && send_batch(self, data, calls) < 0) return -1; /* a second time: only after the first */
  if (writer->state == GIVEN && writer->fd >= 0 && look_again(writer) < 0) return -1;
  if (writer->state != CLEAR || writer->fd < 0) return call_later(calls, write, data);
  writer->state = CHOSEN;
  self->writers[self->count++] = (Writer *)Py_NewRef(write);
  return self->count == BATCH ? send_batch(self, data, calls) : 0;
}

/* -1: an exception; even then what was taken into the batch is sent. */
static int send_to_all(Sender *self, PyObject *sockets, PyObject *data, PyObject *calls) {
  PyObject *iterator = PyObject_GetIter(sockets), *socket;
  int failed = iterator == NULL ? -1 : 0;
  while (!failed && (socket = PyIter_Next(iterator)) != NULL) {
    PyObject *write = PyObject_GetAttr(socket, str_write);
    failed = write == NULL ? -1 : take(self, write, data, calls);
    Py_XDECREF(write);
    Py_DECREF(socket);
  }
  Py_XDECREF(iterator);
  failed = failed || PyErr_Occurred() ? -1 : 0;
  if (self->count > 0) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (send_batch(self, data, calls) < 0) failed = -1;
    if (type != NULL) PyErr_Restore(type, value, traceback);
  }
  return failed;
}

static PyObject *sender_send(Sender *self, PyObject *const *arguments, Py_ssize_t count) {
  if (count != 2 || !PyBytes_CheckExact(arguments[1]) || PyBytes_GET_SIZE(arguments[1]) > INT_MAX) {
    PyErr_SetString(PyExc_TypeError, "send() takes an iterable of objects with `write`, and bytes (less than 2 GiB)");
    return NULL;
  }
  if (self->is_busy) {
    PyErr_SetString(PyExc_RuntimeError, "send() is running already: a Sender belongs to one thread");
    return NULL;
  }
  PyObject *data = arguments[1], *calls = PyList_New(0);
  if (calls == NULL) return NULL;
  self->is_busy = 1;
  ring_leave_to_parent(&self->ring);
  int failed = send_to_all(self, arguments[0], data, calls);
  self->is_busy = 0; /* what is called now may send again */
  failed = call_all(calls, failed);
  Py_DECREF(calls);
  if (failed) return NULL;
  Py_RETURN_NONE;
}

static PyObject *sender_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
  static char *names[] = {"engine", NULL};
  const char *engine;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s", names, &engine)) return NULL;
  if (strcmp(engine, "io_uring") != 0 && strcmp(engine, "send") != 0)
    return PyErr_Format(PyExc_ValueError, "Sender(engine='%s'): allowed are 'io_uring' and 'send'", engine);
  Sender *self = (Sender *)type->tp_alloc(type, 0); /* zeroed: no batch, and a closed ring */
  if (self != NULL && engine[0] == 'i' && ring_open(&self->ring, BATCH) < 0) {
    PyErr_SetFromErrno(PyExc_OSError);
    Py_CLEAR(self);
  }
  return (PyObject *)self;
}

static PyObject *sender_close(Sender *self, PyObject *Py_UNUSED(nothing)) {
  if (!self->is_busy) ring_close(&self->ring);
  Py_RETURN_NONE;
}

static void sender_dealloc(Sender *self) {
  ring_close(&self->ring);
  Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *sender_engine(Sender *self, void *Py_UNUSED(closure)) {
  return PyUnicode_FromString(ring_is_open(&self->ring) ? "io_uring" : "send");
}

static PyMethodDef sender_methods[] = {
    {"send", (PyCFunction)(void (*)(void))sender_send, METH_FASTCALL,
     "send(sockets, data): give the same bytes to the `write` of each. Never waits.\n\n"
     "What a Writer's socket did not take at once is given to its stream. Raises what a `write` raises."},
    {"close", (PyCFunction)sender_close, METH_NOARGS, "Give the ring back; from now on the engine is send(). Idempotent."},
    {NULL},
};

static PyGetSetDef sender_properties[] = {
    {"engine", (getter)sender_engine, NULL, "\"io_uring\" or \"send\": what it sends with.", NULL},
    {NULL},
};

static PyTypeObject SenderType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "aibos_realtime.transport.compiled.Sender",
    .tp_doc = "Sender(engine): sends the same bytes to many. Belongs to the thread that made it.\n\n"
              "engine: \"io_uring\" or \"send\". Raises OSError where the kernel has no io_uring (Linux before 6.1), or forbids it.",
    .tp_basicsize = sizeof(Sender),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = sender_new,
    .tp_dealloc = (destructor)sender_dealloc,
    .tp_methods = sender_methods,
    .tp_getset = sender_properties,
};

/* — the module — */

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "aibos_realtime.transport.compiled",
    .m_doc = "The same bytes to many sockets in one call: the compiled part of transport.batch.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit_compiled(void) {
  str_write = PyUnicode_InternFromString("write");
  str_queued = PyUnicode_InternFromString("get_write_buffer_size");
  PyObject *made = PyModule_Create(&module);
  if (made == NULL || str_write == NULL || str_queued == NULL || PyModule_AddType(made, &WriterType) < 0 || PyModule_AddType(made, &SenderType) < 0) {
    Py_XDECREF(made);
    return NULL;
  }
  return made;
}
