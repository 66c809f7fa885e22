"""FastAPI with the model in the process that answers: what many teams write first.

Its docs: "Server Workers - Uvicorn with Workers" (a process for each core), "Custom Response" (JSON is written
fastest through a response model, and ORJSONResponse is deprecated for it), "Concurrency and async / await"
(`async def` saves the thread pool, which costs more than a model of microseconds). uvicorn: "Settings" (uvloop and
httptools, no access log). FastAPI has no batching.
"""

import v2
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel


class Input(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class Request(BaseModel):
    id: str | None = None
    inputs: list[Input]


class Output(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class Answer(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Output]


app = FastAPI()
model = v2.session()


@app.post(v2.PATH, response_model_exclude_none=True)
async def infer(request: Request) -> Answer:
    if len(request.inputs) != 1 or request.inputs[0].name != "input":
        raise HTTPException(400, f"{v2.MODEL} has one input, 'input'")
    given = request.inputs[0]
    try:
        tensor = v2.tensor(given.datatype, given.shape, given.data)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    (output,) = v2.run(model, [tensor])
    return Answer(**v2.encode(output, request.id))
